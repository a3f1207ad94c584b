"""The quality check of a rounded export: right answers of held-out rows, scored before and after."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from recipes.tasks import Row, TaskConfig, load_rows
from recipes.warmup import AnswerFormat, response_text
from rollouts.modes import Mode, ModesConfig

if TYPE_CHECKING:
    from base_model.export.checkpoint import Checkpoint
    from base_model.export.quality import AnswerExample, AnswerScore
    from recipes.export import QualityConfig


class QualityCheck:
    """Scores exports of one checkpoint; the checkpoint itself is scored once, at the first of them.

    Raises:
        ValueError: the task has no held-out rows with a right answer.
    """

    def __init__(
        self,
        task: TaskConfig,
        modes: ModesConfig,
        answer: AnswerFormat,
        config: QualityConfig,
        checkpoint: Checkpoint,
    ) -> None:
        self.config, self.checkpoint = config, checkpoint
        mode = modes.short if config.mode == "short" else modes.long
        rows = _answered(load_rows(task, "eval"), mode)[: config.rows]
        if not rows:
            raise ValueError(
                f"no held-out row has {'a worked solution' if mode.thinks else 'a right answer'}, so the cost of "
                "rounding cannot be checked: give a task that has, or set task to null"
            )
        self.examples = answer_examples(rows, mode, answer, checkpoint)
        self._before: list[AnswerScore] | None = None

    def __call__(self, name: str, model: Any) -> dict[str, Any]:
        """Figures of an export, for the report.

        Args:
            name: of the export.
            model: the export, read back.

        Raises:
            ValueError: quality fell by more than the configuration allows, and it says to refuse.
        """
        from base_model.export.load import load_plain
        from base_model.export.quality import answer_scores, compare_quality
        from recipes.console import say

        after = answer_scores(model, self.examples)
        del model
        if self._before is None:
            self._before = answer_scores(load_plain(self.checkpoint.folder), self.examples)
        quality = compare_quality(self._before, after, seed=self.config.seed)
        say(f"  {name}: {quality.sentence()}")
        if quality.drop > self.config.max_drop:
            self._judge(name, quality.drop)
        return quality.as_dict()

    def _judge(self, name: str, drop: float) -> None:
        from recipes.console import say

        sentence = (
            f"the {name} export loses {drop:.3f} nats per answer token, more than quality.max_drop "
            f"{self.config.max_drop}: "
        )
        if self.config.on_drop == "refuse":
            raise ValueError(
                sentence + "store more bits (int4.group 32, gguf.type q4_1 or q8_0), or allow more, or only warn "
                "(quality.on_drop)"
            )
        say(f"warning: {sentence}it is kept, since quality.on_drop is warn")


def _answered(rows: Sequence[Row], mode: Mode) -> list[Row]:
    return [row for row in rows if row.reference is not None and (row.solution or not mode.thinks)]


def answer_examples(
    rows: Sequence[Row], mode: Mode, answer: AnswerFormat, checkpoint: Checkpoint
) -> list[AnswerExample]:
    """Prompt and right answer of each row as the model would be trained on them, images included."""
    from transformers import AutoProcessor, AutoTokenizer

    from base_model.export.quality import AnswerExample

    tokenizer = AutoTokenizer.from_pretrained(checkpoint.folder, local_files_only=True)
    processor = AutoProcessor.from_pretrained(checkpoint.folder) if checkpoint.has_vision else None
    examples = []
    for row in rows:
        prompt_ids, inputs = _prompt(row, mode, tokenizer, processor)
        text = response_text(row, mode, answer)
        answer_ids = [*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        examples.append(AnswerExample(prompt_ids=prompt_ids, answer_ids=answer_ids, inputs=inputs))
    return examples


def _prompt(row: Row, mode: Mode, tokenizer: Any, processor: Any) -> tuple[Sequence[int], Any]:
    """Ids of a prompt, and the model's further arguments for its media."""
    from rollouts.prompts import render_media_prompt, render_prompt

    if not (row.images or row.videos):
        return render_prompt(tokenizer, row.messages, mode), {}
    if processor is None:
        raise ValueError(f"row {row.index} has images or videos, but the model has no vision tower: take other rows")
    from base_model.video_settings import VideoSettings
    from base_model.vlm.media import open_image, open_video

    images = [open_image(image) for image in row.images]
    videos = [open_video(video, VideoSettings()) for video in row.videos]
    prompt = render_media_prompt(processor, row.messages, images, videos, mode)
    return prompt.ids, prompt.inputs
