"""The reference policy's log-probs of preference pairs, computed once and kept on the disk.

They are known before the first update, so the reference model is never in memory beside the policy. The key is (model,
precision, prompt, response), so runs, rounds and restarts share what is in the file, and images and videos take part.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

from rl.disk_cache import DiskCache, content_key, file_fingerprint
from rl.preference_learner import EncodedPair, SideLogprobs

Score = Callable[[Sequence[EncodedPair]], list[SideLogprobs]]
"""``PreferenceLearner.logprobs`` of the reference policy."""


class ReferenceLogprobs:
    """Looks up, and fills, the cache for one reference model."""

    def __init__(self, cache: DiskCache, model: str) -> None:
        """Args:
        cache: Where the numbers are kept.
        model: Identifies the weights and the precision they are run in; see `model_fingerprint`.
        """
        self._cache = cache
        self._model = model

    def fill(
        self,
        pairs: Sequence[EncodedPair],
        batches: Sequence[range],
        score: Score,
        on_progress: Callable[[int, int], None] = lambda _done, _total: None,
    ) -> int:
        """Compute what is missing; returns the number of pairs that were run.

        A batch with anything missing is run whole: its numbers, which depend on the batch in their last bits, are
        then the same wherever an earlier run was stopped.

        Args:
            pairs: The pairs that will be asked for.
            batches: How they are cut into forward passes, by position.
            score: Runs one such pass with the reference policy.
            on_progress: Called with (batches done, batches).
        """
        run = 0
        for done, part in enumerate(batches, start=1):
            own = [pairs[i] for i in part]
            if any(key not in self._cache for pair in own for key in self._keys(pair)):
                found = score(own)
                values = {
                    key: value
                    for pair, sides in zip(own, found, strict=True)
                    for key, value in zip(self._keys(pair), sides, strict=True)
                }
                if not all(map(math.isfinite, values.values())):
                    raise ValueError(
                        "the reference model gives a log-prob that is not finite for a preference pair: its weights "
                        "are damaged, or need another precision (learner.precision: float32)"
                    )
                self._cache.add(values)
                run += len(own)
            on_progress(done, len(batches))
        return run

    def get(self, pairs: Sequence[EncodedPair]) -> list[SideLogprobs]:
        """The log-probs of pairs that have been filled in."""
        return [SideLogprobs(*(self._cache.get(key) for key in self._keys(pair))) for pair in pairs]

    def _keys(self, pair: EncodedPair) -> tuple[str, str]:
        prompt = [self._model, pair.media_key, pair.prompt_ids]
        return content_key(*prompt, pair.chosen_ids), content_key(*prompt, pair.rejected_ids)


def model_fingerprint(folder: Path, precision: str) -> str:
    """Identifies a checkpoint's weights, its configuration and that of its processor, and the precision they are run
    in.
    """
    files = [*folder.glob("model*.safetensors"), folder / "config.json", *folder.glob("*processor_config.json")]
    return f"{precision}:{file_fingerprint(files)}"
