"""vLLM used directly, without the engine: `python -m tests.rollouts.vllm_direct KIND DIRECTORY`, JSON on the last line.

plugin    this package's plug-in, with all of vLLM's caches on: one request after the other
in_tree   vLLM's own class of the architecture, for what it can serve; it wants the image processor as remote code
"""

from __future__ import annotations

import base64
import json
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from tests.base_model.vlm.clips import write_clip
from tests.base_model.vlm.small import picture, video
from tests.rollouts.vision import cases, mixed_sizes

IMAGE, VIDEO = "(<image>./</image>)", "(<video>./</video>)"
IN_TREE = ("text", "image", "sliced image", "two images")


def prompts_of(kind: str) -> list[tuple[str, list[Any], list[Any]]]:
    """Texts with their images and videos, in the order of the requests."""
    if kind == "in_tree":
        return [(_text(cases()[name][0]), *cases()[name][1:]) for name in IN_TREE]
    first, second = picture(120, 90, 5), picture(120, 90, 6)
    clip = video([2, 2])
    later = type(clip)(clip.packages, [[time + 2 for time in package] for package in clip.times])
    return [
        (f"{IMAGE} one", [first], []),
        (f"{IMAGE}, {IMAGE}", [second, first], []),  # the first one's number changes, its features do not
        (f"{IMAGE} one", [second], []),
        (f"{VIDEO} a", [], [clip]),
        (f"{VIDEO} a", [], [later]),
        (f"{VIDEO} a", [], [mixed_sizes()]),
        (f"{VIDEO} a", [], [clip]),
        ("no media <unk><image>", [], []),
    ]


def from_reader() -> tuple[np.ndarray, dict[str, Any]]:
    """A clip of 181 frames as vLLM's own reader gives it: too many for packages of one."""
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (181, 14, 14, 3), dtype=np.uint8), {"fps": 4.0, "frames_indices": list(range(181))}


def _text(parts: list[dict[str, str]]) -> str:
    return "\n".join({"image": IMAGE, "video": VIDEO}.get(part["type"]) or part["text"] for part in parts)


def with_remote_code(directory: Path) -> None:
    """Says where the image processor is, in the way that vLLM's own class asks for it."""
    where = {"auto_map": {"AutoImageProcessor": "remote_image_processor.Remote"}}
    path = directory / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | where))
    path = directory / "processor_config.json"
    settings = json.loads(path.read_text())
    settings["image_processor"] |= where
    path.write_text(json.dumps(settings))
    (directory / "remote_image_processor.py").write_text(
        "from base_model.vlm.image_processing import MiniCPMVImageProcessor\n\n\n"
        "class Remote(MiniCPMVImageProcessor):\n    pass\n"
    )


def without_torchvision() -> None:
    """The short name of the Auto class asks for torchvision, which a processor of our own does not need."""
    import transformers
    from transformers.models.auto.image_processing_auto import AutoImageProcessor

    transformers.AutoImageProcessor = AutoImageProcessor


def with_official_names() -> None:
    """The official tokenizer, which is remote code, has the ids of a view's ends as attributes."""
    from transformers import PreTrainedTokenizerBase

    for name, token in (("im_start_id", "<image>"), ("im_end_id", "</image>")):
        setattr(PreTrainedTokenizerBase, name, property(lambda self, token=token: self.convert_tokens_to_ids(token)))


def main(kind: str, directory: str) -> None:
    """Prints ids and log-probabilities of every prompt as JSON."""
    from vllm import LLM, SamplingParams

    import base_model.vlm  # noqa: F401 (vLLM's own class reads the configuration through AutoConfig)

    if kind == "in_tree":
        with_remote_code(Path(directory))
        without_torchvision()
        with_official_names()
    llm = LLM(
        directory,
        dtype="float32",
        enforce_eager=True,
        max_model_len=1024,
        max_num_seqs=4,
        kv_cache_memory_bytes=2**27,
        limit_mm_per_prompt={"image": 4, "video": 0 if kind == "in_tree" else 2},
        skip_mm_profiling=True,
        trust_remote_code=kind == "in_tree",
    )
    params = SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=0)
    found = []
    for text, images, videos in prompts_of(kind):
        media = {name: items for name, items in (("image", images), ("video", videos)) if items}
        [output] = llm.generate(
            [{"prompt": text, "multi_modal_data": media}] if media else [text], params, use_tqdm=False
        )
        ids = list(output.prompt_token_ids)
        pairs = zip(ids[1:], output.prompt_logprobs[1:], strict=True)
        found.append({"ids": ids, "logprobs": [entry[token].logprob for token, entry in pairs]})
    others = others_of(llm, Path(directory)) if kind == "plugin" else {}
    model = llm.llm_engine.collective_rpc(lambda worker: type(worker.model_runner.get_model()).__module__)
    print(json.dumps({"module": model[0], "found": found, **others}))


def others_of(llm: Any, directory: Path) -> dict[str, list[int]]:
    """Prompt ids of what comes by other ways: pixels of vLLM's reader, and a chat message with files in it."""
    from vllm import SamplingParams

    params = SamplingParams(max_tokens=1)
    request = {"prompt": VIDEO, "multi_modal_data": {"video": from_reader()}}
    [by_reader] = llm.generate([request], params, use_tqdm=False)
    [by_chat] = llm.chat(chat(directory), params, use_tqdm=False)
    return {"by_reader": list(by_reader.prompt_token_ids), "by_chat": list(by_chat.prompt_token_ids)}


def chat(directory: Path) -> list[dict[str, Any]]:
    """A conversation in the form of the OpenAI interface; the files are in the addresses themselves."""
    clip = write_clip(directory / "clip.mp4", frames=20)
    image = BytesIO()
    picture(300, 200).save(image, "PNG")
    parts = [
        {"type": "image_url", "image_url": {"url": _address("image/png", image.getvalue())}},
        {"type": "video_url", "video_url": {"url": _address("video/mp4", clip.read_bytes())}},
        {"type": "text", "text": "What is it?"},
    ]
    return [{"role": "user", "content": parts}]


def _address(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


if __name__ == "__main__":
    main(*sys.argv[1:])
