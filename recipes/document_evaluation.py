"""How well a model reads pages: whole clean pages, and one region of a page at each level of corruption.

The model writes the whole page; what stands in the place of the region is its answer for it.

Legend: N pages.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from base_model.corruption_settings import CorruptionSettings
from recipes.render import RenderSource
from recipes.render.records import Region
from recipes.samples.pages import WHOLE_PAGE, PageQuestions, page_sample, transcript
from recipes.samples.sample import Sample, asked, turns
from rollouts.modes import ShortMode

CLEAN_PAGE, CLEAN_REGION, LEVELS = "page, clean", "region, clean", ("low", "moderate", "high")
TASKS = (CLEAN_PAGE, CLEAN_REGION, *(f"region, {level}" for level in LEVELS))
"""What is measured: whole clean pages, and one region, clean and at each level of corruption."""
_BATCH = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """One answer."""

    text: str
    read: str

    @property
    def exact(self) -> bool:
        """Whether it is the right text, white space aside."""
        return self.read.split() == self.text.split()

    @property
    def errors(self) -> int:
        """Characters to insert, delete or replace."""
        return edit_distance(self.read.strip(), self.text.strip())


def held_out(source: RenderSource, corruption: CorruptionSettings, pages: int, seed: int) -> dict[str, list[Sample]]:
    """N held-out samples of each task, on the same pages; one region of each page is asked for.

    Args:
        source: the pages.
        corruption: operators and strengths; each task applies one level alone.
        pages: N.
        seed: of pages, regions and corruption.
    """
    samples: dict[str, list[Sample]] = {task: [] for task in TASKS}
    for index in range(pages):
        item = source.item("eval", seed, index)
        page = turns(asked("image", WHOLE_PAGE), transcript(item.regions))
        samples[CLEAN_PAGE].append(Sample(messages=page, images=item.images, task="ocr", place=f"page {index}"))
        for task, settings in _settings(corruption).items():
            made = page_sample(
                item.images[0],
                item.regions,
                settings,
                PageQuestions(refer="page", at_most=1),
                seed=seed,
                sample=f"page {index}",
                place=f"page {index}",
            )
            assert made.facts is not None
            facts = {**made.facts, "words": _words(item.regions, made.facts["regions"][0])}
            samples[task].append(dataclasses.replace(made, facts=facts))
    return samples


def _words(regions: Sequence[Region], asked_for: int) -> tuple[int, int]:
    """First word of a region, and the one after its last, in the page's transcript."""
    order = sorted(range(len(regions)), key=lambda at: (regions[at].group, at))
    before = sum(len(regions[at].text.split()) for at in order[: order.index(asked_for)])
    return before, before + len(regions[asked_for].text.split())


def _settings(corruption: CorruptionSettings) -> dict[str, CorruptionSettings | None]:
    """One level alone for each task; all levels ask for the same region of a page."""
    found: dict[str, CorruptionSettings | None] = {CLEAN_REGION: None}
    for level in LEVELS:
        weights = {
            name: getattr(corruption, name).model_copy(update={"weight": float(name == level)}) for name in LEVELS
        }
        found[f"region, {level}"] = corruption.model_copy(update={**weights, "region_share": 0.0, "min_regions": 1})
    return found


def read(model_path: Path, samples: Sequence[Sample]) -> list[Reading]:
    """The model's answers in short mode, by greedy decoding."""
    import torch
    from transformers import AutoModelForImageTextToText

    from base_model.checkpoints import load_processor

    processor = load_processor(model_path)
    processor.tokenizer.padding_side = "left"
    model = AutoModelForImageTextToText.from_pretrained(model_path, use_safetensors=True, local_files_only=True).eval()
    readings: list[Reading] = []
    longest = max(len(processor.tokenizer(_target(sample))["input_ids"]) for sample in samples) + 8
    for batch in _batches(samples):
        inputs = _inputs(processor, batch)
        with torch.inference_mode():
            out = model.generate(**inputs, max_new_tokens=longest, do_sample=False)
        texts = processor.tokenizer.batch_decode(out[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        readings += [_reading(sample, text) for sample, text in zip(batch, texts, strict=True)]
    return readings


def _reading(sample: Sample, text: str) -> Reading:
    """The whole page; or, of a page with a region in question, the words in that region's place."""
    if sample.facts is None:
        return Reading(text=_target(sample), read=text)
    words = slice(*sample.facts["words"])
    return Reading(text=" ".join(_target(sample).split()[words]), read=" ".join(text.split()[words]))


def _target(sample: Sample) -> str:
    return str(sample.messages[-1]["content"])


def _batches(samples: Sequence[Sample]) -> Iterator[Sequence[Sample]]:
    for start in range(0, len(samples), _BATCH):
        yield samples[start : start + _BATCH]


def _inputs(processor: Any, samples: Sequence[Sample]) -> Any:
    from rollouts.prompts import render_text

    mode = ShortMode()
    texts = [render_text(processor, sample.prompt, mode) for sample in samples]
    return processor(text=texts, images=[list(sample.images) for sample in samples])


def edit_distance(first: str, second: str) -> int:
    """Levenshtein's distance: insertions, deletions and replacements of characters."""
    row = list(range(len(second) + 1))
    for above, left in enumerate(first, start=1):
        corner, row[0] = row[0], above
        for at, right in enumerate(second, start=1):
            corner, row[at] = row[at], min(row[at] + 1, row[at - 1] + 1, corner + (left != right))
    return row[-1]


def figures(readings: Sequence[Reading]) -> dict[str, float]:
    """Share of exact answers, and character error rate: errors over characters of the right texts."""
    return {
        "exact": sum(reading.exact for reading in readings) / len(readings),
        "cer": sum(reading.errors for reading in readings) / sum(len(reading.text.strip()) for reading in readings),
    }


def difference(
    first: Sequence[Sequence[Reading]],
    second: Sequence[Sequence[Reading]],
    name: str,
    contents: Sequence[str],
    *,
    draws: int = 1000,
) -> tuple[float, float, float]:
    """Mean difference of a figure between two arms, with its 95 % interval by bootstrap over seeds and contents.

    Args:
        first, second: for each seed, the readings of the same N pages in the same order.
        name: a figure of `figures`.
        contents: (N,) what each page says; pages that say the same are drawn together, as they are no independent
            evidence.
        draws: of the bootstrap.

    Returns:
        (first minus second, lower, upper).
    """
    rng = random.Random(0)
    seeds, groups = range(len(first)), _grouped(contents)

    def gap(chosen_seeds: Sequence[int], chosen_pages: Sequence[int]) -> float:
        gaps = [
            figures([first[seed][page] for page in chosen_pages])[name]
            - figures([second[seed][page] for page in chosen_pages])[name]
            for seed in chosen_seeds
        ]
        return sum(gaps) / len(gaps)

    def drawn() -> float:
        return gap(
            rng.choices(seeds, k=len(seeds)), [page for group in rng.choices(groups, k=len(groups)) for page in group]
        )

    found = sorted(drawn() for _ in range(draws))
    return gap(seeds, range(len(contents))), found[int(0.025 * draws)], found[int(0.975 * draws)]


def _grouped(contents: Sequence[str]) -> list[list[int]]:
    """Indices of equal contents together."""
    groups: dict[str, list[int]] = {}
    for index, content in enumerate(contents):
        groups.setdefault(content, []).append(index)
    return list(groups.values())
