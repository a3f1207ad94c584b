"""Measures single points: the learner's update of a fresh tiny model on random tokens and images."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch

from base_model import packed_attention
from base_model.flops import FlopCount, attention_scores
from base_model.packed_lm import PackedCausalLM
from base_model.packing import PackedBatch, TokenGroup
from base_model.training_settings import PARTS
from base_model.vlm.presets import build
from base_model.vlm.tokenizer import train_tokenizer
from recipes.benchmark.workload import make_image
from recipes.new_model import TokenizerTexts, corpus
from recipes.tasks import Row
from rl.config import LearnerConfig
from rl.learner import Learner, TrainGroup
from rl.prompts import PromptMaker
from rollouts.modes import ShortMode

if TYPE_CHECKING:
    from recipes.benchmark.scaling import ScalingConfig

_MODE = ShortMode()


class Bench:
    """Learners of the widths that are asked for, one at a time in memory.

    Args:
        config: what is measured.
        threads: of the matrix products.
    """

    def __init__(self, config: ScalingConfig, threads: int) -> None:
        torch.set_num_threads(threads)
        packed_attention.register()
        self._config = config
        self._width = 0
        self._random = random.Random(0)

    @property
    def precision(self) -> str:
        """The matrix products' type."""
        return str(self._learner.dtype).removeprefix("torch.")

    def measure(self, point: Mapping[str, Any]) -> dict[str, Any]:
        """The point with its seconds and its counted work."""
        learner = self._at(point["width"])
        groups = [self._group(point, number) for number in range(self._config.batch)]
        work: dict[str, float] = {}
        hook = learner.packed.register_forward_pre_hook(lambda _module, args: self._count(work, args[0]))
        learner.update(groups)
        hook.remove()
        walls, cpus = [], []
        for _ in range(self._config.repeats):
            wall, cpu = time.perf_counter(), time.process_time()
            learner.update(groups)
            walls.append(time.perf_counter() - wall)
            cpus.append(time.process_time() - cpu)
        return {**point, **work, "seconds": min(walls), "cpu_seconds": min(cpus)}

    def _at(self, width: int) -> Learner:
        if width != self._width:
            heads = {"num_attention_heads": width // 64, "num_key_value_heads": width // 128}
            sizes = {"hidden_size": width, "intermediate_size": 2 * width, "vocab_size": self._config.vocabulary}
            model, self._processor = build("tiny", self._tokenizer, **sizes, **heads)
            model.llm.set_attn_implementation(packed_attention.NAME)
            # So small a rate that all repeats see the same weights; the optimizer works all the same.
            settings = LearnerConfig(precision=self._config.precision, learning_rate=1e-12)
            self._learner = Learner(PackedCausalLM(model.train()), settings, total_steps=1_000_000)
            self._flops = FlopCount(model, PARTS)
            self._width = width
        return self._learner

    @cached_property
    def _tokenizer(self) -> Any:
        return train_tokenizer(corpus(TokenizerTexts(rows=20)), vocab_size=512)

    def _group(self, point: Mapping[str, Any], number: int) -> TrainGroup:
        prompt, media = self._draw(point["prompt"]), None
        if point["images"]:
            side = self._processor.image_processor.scale_resolution
            images = [make_image(side, 100 * number + n) for n in range(point["images"])]
            content = [*[{"type": "image"}] * len(images), {"type": "text", "text": "?"}]
            messages = ({"role": "user", "content": content},)
            row = Row(index=number, messages=messages, columns={}, reference="", images=tuple(images), videos=())
            maker = PromptMaker(self._processor)
            prompt = [*maker.prompt(row, _MODE).ids, *prompt]
            media = maker.inputs(row, _MODE)
        responses = [self._draw(point["response"]) for _ in range(point["group_size"])]
        return TrainGroup(
            tokens=TokenGroup(prompt=prompt, responses=responses),
            advantages_G=tuple((-1.0) ** n for n in range(len(responses))),
            engine_logprobs=tuple((-1.0,) * len(each) for each in responses),
            media=media,
        )

    def _draw(self, count: int) -> list[int]:
        """Tokens of plain text: the first 256 of the vocabulary are bytes."""
        return [self._random.randrange(256) for _ in range(count)]

    def _count(self, work: dict[str, float], batch: PackedBatch) -> None:
        patches = sum(int(n) for each in batch.media for n in each.inputs["tgt_sizes"][0].prod(-1))
        repeats = len(batch.layout[0].responses)
        both = {
            "tokens": sum(each.total for each in batch.layout),
            "scores": sum(map(attention_scores, batch.layout)),
            "patches": patches,
            "repeated_tokens": sum(n + each.prompt for each in batch.layout for n in each.responses),
            "repeated_scores": sum((n + each.prompt) ** 2 for each in batch.layout for n in each.responses),
            "repeated_patches": patches * repeats,
            "reads": sum(each.prompt * len(each.responses) for each in batch.layout),
            "repeated_reads": 0,
            "positions": len(batch.targets_T),
            "repeated_positions": len(batch.targets_T),
            "flop": self._flops.count(batch),
        }
        for name, value in both.items():
            work[name] = work.get(name, 0) + value
