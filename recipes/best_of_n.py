"""Chooses the best of several responses to each prompt, by the implicit reward of a DPO policy.

The rows have a `prompt` (text or messages), `responses` (a list of texts), as sampled from the policy, and `images` or
`videos` where the prompt has any. The reward is beta / length * log(policy / reference), so the two models and nothing
else judge (RLAIF-V, arXiv 2405.17220, s3.4).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from base_model.video_settings import VideoSettings
from recipes.cli import run_recipe
from recipes.models import ModelConfig
from rollouts.modes import ModesConfig

if TYPE_CHECKING:
    from recipes.pairs import GivenPrompt
    from recipes.samples import Rejected
    from recipes.sources import RawRow
    from rl.best_of_n import Candidates
    from rl.prompts import PromptMaker


class BestOfNConfig(BaseModel):
    """What is chosen from, by which models."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    model: ModelConfig
    """The policy that DPO made."""
    reference: ModelConfig
    """The policy that DPO started from."""
    candidates: Path
    """File of prompts with responses (.jsonl, .json, .parquet)."""
    out: Path
    """JSONL file to write: each row with `best` (a place among the responses), `response`, `rewards` and `problem`:
    why there is no choice, where images or videos are missing or unreadable."""
    beta: float = Field(0.1, gt=0)
    """That of the DPO run; it scales the rewards and does not change the choice."""
    length_normalised: bool = True
    """Divide rewards by the tokens of the response."""
    modes: ModesConfig = ModesConfig(mode="short")
    """What the modes are; modes.mode (short or long) is the one the responses were given in."""
    media_folder: Path | None = None
    """Folder that the paths of images and videos are relative to. null = the folder of the data file."""
    media_outside: bool = False
    """Whether images and videos may lie outside that folder. Only for data that is trusted."""
    video: VideoSettings = VideoSettings()
    """How clips are sampled and packed, where rows have videos."""
    micro_batch_tokens: int = Field(16384, ge=0)
    """Packed tokens of one forward pass; 0 = all at once."""


def main(config: BestOfNConfig) -> None:
    """Read the candidates, score them with one model after the other, write the choice."""
    from recipes.console import say
    from recipes.models import resolve_model
    from recipes.pairs import given_prompt
    from recipes.row_media import MediaFiles
    from recipes.sources import read_file
    from rl.files import atomic_write_text, finite

    if config.modes.mode == "hybrid":
        raise ValueError("modes.mode is hybrid: set it to short or long, the mode the responses were given in")
    media = MediaFiles(folder=config.media_folder, outside=config.media_outside)
    rows = list(read_file(config.candidates))
    prompts = [given_prompt(_checked(row), row, media) for row in rows]
    paths = [resolve_model(model) for model in (config.model, config.reference)]
    encoded = _encode(config, paths[0], rows, prompts)
    records = _choose(config, paths, rows, encoded)
    lines = (json.dumps(finite(record), ensure_ascii=False, default=_shown) + "\n" for record in records)
    atomic_write_text(config.out, "".join(lines))
    changed = sum(bool(record["best"]) for record in records)
    say(f"{len(records)} prompts; the best response is not the first one in {changed}. Written: {config.out}")
    problems = [record["problem"] for record in records if record["problem"]]
    if problems:
        say(f"no choice for {len(problems)} prompts (column `problem`); the first: {problems[0]}")


def _checked(row: RawRow) -> Any:
    """The prompt of a row, which must have responses too. Raises ValueError."""
    responses = row.values.get("responses")
    if not isinstance(responses, list) or not responses or not all(isinstance(text, str) for text in responses):
        raise ValueError(f"{row.place} must have `responses`, a list of texts with at least one")
    if row.values.get("prompt") is None:
        raise ValueError(f"{row.place} has no `prompt`")
    return row.values["prompt"]


def _encode(
    config: BestOfNConfig, path: Path, rows: Sequence[RawRow], prompts: Sequence[GivenPrompt]
) -> list[Candidates | Rejected]:
    """The candidates of each row as token ids, or what is wrong with its images or videos.

    Raises:
        ValueError: No row is left.
    """
    from base_model.checkpoints import load_processor
    from recipes.samples import Rejected
    from rl.prompts import PromptMaker

    maker = PromptMaker(load_processor(path, trust_remote_code=config.model.trust_remote_code), config.video)
    found: list[Candidates | Rejected] = []
    for index, (row, prompt) in enumerate(zip(rows, prompts, strict=True)):
        try:
            found.append(_candidates(maker, row, prompt, config.modes, index))
        except Rejected as problem:
            found.append(problem)
    if all(isinstance(each, Rejected) for each in found):
        raise ValueError(f"none of the {len(found)} prompts can be used; the first: {found[0]}")
    return found


def _candidates(maker: PromptMaker, row: RawRow, prompt: GivenPrompt, modes: ModesConfig, index: int) -> Candidates:
    from recipes.dpo_data import response_ids
    from recipes.encoded_prompts import encode_prompt
    from rl.best_of_n import Candidates

    encoded = encode_prompt(maker, prompt, modes.active()[0], index=index, place=row.place)
    responses = tuple(response_ids(maker.tokenizer, text) for text in row.values["responses"])
    return Candidates(prompt_ids=encoded.ids, responses=responses, load_inputs=encoded.load_inputs)


def _choose(
    config: BestOfNConfig, paths: Sequence[Path], rows: Sequence[RawRow], encoded: Sequence[Candidates | Rejected]
) -> list[dict[str, Any]]:
    """Each row with its choice."""
    from rl.best_of_n import Candidates, best_of_n

    usable = [each for each in encoded if isinstance(each, Candidates)]
    models = (config.model, config.reference)
    policy, reference = (iter(_score(p, m, usable, config)) for p, m in zip(paths, models, strict=True))
    records = []
    for row, own in zip(rows, encoded, strict=True):
        if not isinstance(own, Candidates):
            records.append({**row.values, "best": None, "response": None, "rewards": None, "problem": str(own)})
            continue
        lengths = [len(response) for response in own.responses]
        options: dict[str, Any] = {"beta": config.beta, "length_normalised": config.length_normalised}
        best, rewards = best_of_n(next(policy), next(reference), lengths, **options)
        response = row.values["responses"][best]
        records.append({**row.values, "best": best, "response": response, "rewards": rewards, "problem": None})
    return records


def _score(
    path: Path, model: ModelConfig, candidates: Sequence[Candidates], config: BestOfNConfig
) -> list[list[float]]:
    """Summed log-probs under one model, which is let go of at the end."""
    import torch

    from base_model.packed_lm import load_packed
    from rl.best_of_n import response_logprobs

    packed = load_packed(path, trust_remote_code=model.trust_remote_code)
    packed.to("cuda" if torch.cuda.is_available() else "cpu")
    return response_logprobs(packed, candidates, config.micro_batch_tokens)


def _shown(value: Any) -> str:
    """A value that JSON has no form for; the content of a file, such as an image of a table, by its size alone."""
    return f"<{len(value)} bytes>" if isinstance(value, bytes) else str(value)


if __name__ == "__main__":
    raise SystemExit(run_recipe(main, BestOfNConfig, doc=__doc__))
