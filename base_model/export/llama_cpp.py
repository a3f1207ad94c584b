"""Runs a GGUF file with llama.cpp itself (the pip package ``xllamacpp``), in a process of its own.

A process, because llama.cpp aborts the whole program on a file it cannot run.
"""

import base64
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MEDIA = "<__media__>"
"""Stands in a prompt where an image belongs (its start and end tokens included)."""

PACKAGE = "xllamacpp"
TIME_LIMIT_S = 1800.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Completion:
    """What llama.cpp made of a prompt, greedily."""

    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[float | None, ...]
    """Natural log-probability of each of them, at temperature 1; None for a token that ends inside a character."""
    prompt_tokens: int
    """Tokens that were read, the images' included."""
    peak_bytes: int
    """Highest resident memory of the process."""


def available() -> bool:
    """Whether llama.cpp is installed here."""
    return importlib.util.find_spec(PACKAGE) is not None


def complete(
    model: Path,
    prompt: str,
    *,
    images: Sequence[bytes] = (),
    projector: Path | None = None,
    max_tokens: int = 32,
    banned: Sequence[int] = (),
    context: int = 2048,
    threads: int = 1,
) -> Completion:
    """Continue a prompt greedily, until the end of the turn or ``max_tokens``.

    Args:
        model: GGUF file of the language model.
        prompt: text, special tokens included, with ``MEDIA`` for each image.
        images: encoded image files (PNG and the like), in the prompt's order.
        projector: GGUF file of the vision tower; needed for images.
        max_tokens: most tokens of the answer.
        banned: ids that are never chosen; log-probs are those without the ban.
        context: tokens of prompt and answer together.
        threads: CPU threads.

    Raises:
        ValueError: llama.cpp is not installed, or cannot load or run the file.
    """
    request = {
        "model": str(model),
        "projector": str(projector) if projector else "",
        "prompt": prompt,
        "images": [base64.b64encode(image).decode() for image in images],
        "max_tokens": max_tokens,
        "banned": list(banned),
        "context": context,
        "threads": threads,
    }
    answer = _in_child("complete", request)
    return Completion(
        text=answer["text"],
        token_ids=tuple(answer["ids"]),
        logprobs=tuple(_align(answer["ids"], answer["reported"])),
        prompt_tokens=answer["prompt_tokens"],
        peak_bytes=answer["peak_bytes"],
    )


def _align(ids: Sequence[int], reported: Sequence[Mapping[str, Any]]) -> list[float | None]:
    """The log-prob of each token; llama.cpp reports none for a token whose text is not whole yet."""
    rest = list(reported)
    return [rest.pop(0)["logprob"] if rest and rest[0]["id"] == token else None for token in ids]


def tokenize(model: Path, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of each text, special tokens parsed, by the tokenizer inside a GGUF file.

    Raises:
        ValueError: as ``complete``.
    """
    answer: list[list[int]] = _in_child("tokenize", {"model": str(model), "texts": list(texts)})["ids"]
    return answer


def _in_child(task: str, request: Mapping[str, Any]) -> Any:
    if not available():
        raise ValueError(f"running GGUF files needs llama.cpp: pip install {PACKAGE} (or the extra `export`)")
    with tempfile.TemporaryDirectory(prefix="tandem-gguf-") as folder:
        asked, answered = Path(folder, "request.json"), Path(folder, "answer.json")
        asked.write_text(json.dumps({"task": task, **request}))
        command = [sys.executable, "-m", "base_model.export.llama_cpp_worker", str(asked), str(answered)]
        environment = os.environ | {
            "LLAMA_MEDIA_MARKER": MEDIA,
            "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
        }
        try:
            done = subprocess.run(
                command,
                env=environment,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=TIME_LIMIT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise ValueError(f"llama.cpp took more than {TIME_LIMIT_S:.0f} s with {request['model']}") from None
        if not answered.is_file():
            raise ValueError(f"llama.cpp cannot run {request['model']}: {_last_words(done.stdout + done.stderr)}")
        return json.loads(answered.read_text())


def _last_words(log: str) -> str:
    """The line of a log that most likely says what went wrong: the first that speaks of it."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    telling = [
        line for line in lines if "error" in line.lower() or "assert" in line.lower() or "failed" in line.lower()
    ]
    return (telling or lines[-1:] or ["it ended without a word"])[0][-300:]
