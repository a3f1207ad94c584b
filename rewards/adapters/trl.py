"""A reward file as TRL's reward functions.

    from rewards.adapters.trl import trl_reward_funcs

    GRPOTrainer(..., reward_funcs=trl_reward_funcs("my_rewards.yaml", reference="solution"))

One function returns the total, and logs each reward beside it (`reward/<name>` in the metrics, a column in the table of
completions). With `separate=True` there is one function per reward, for TRL's own weighting:

    GRPOConfig(..., reward_weights=trl_reward_weights("my_rewards.yaml"))

The function has TRL's contract, `f(prompts, completions, completion_ids, **columns) -> list[float | None]`, and needs
no TRL to be called. Responses, thinking and answers are those of Tandem, and so are the scores.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from rewards.adapters.texts import last_text, plain
from rewards.registry import RewardError
from rewards.reward_file import RewardFile, read_reward_file
from rewards.reward_set import RewardSet, Score
from rewards.samples import make_sample

NOT_COLUMNS = ("trainer_state", "log_extra", "log_metric", "environments")
RewardFunction = Callable[..., list[float | None]]


def trl_reward_funcs(
    rewards: str | Path,
    *,
    separate: bool = False,
    mode: str | None = None,
    reference: str = "reference",
    num_generations: int | None = None,
    eos_token_id: int | Sequence[int] | None = None,
    prefilled: bool = True,
    columns: Sequence[str] | None = None,
) -> list[RewardFunction]:
    """Return the list for `GRPOTrainer(reward_funcs=...)`.

    Args:
        rewards: the reward file.
        separate: one function per reward, unweighted, instead of one for the total.
        mode: the mode of all responses. None: the dataset's column `mode`, or else told from the response's think tags
            (which cannot tell an unfinished thought whose opening tag is in the prompt from an answer).
        reference: the dataset's column that holds the right answer.
        num_generations: TRL's; for group rewards, which then refuse a group that is not whole. None: responses to
            equal prompts in a row are one group, so a prompt must not stand twice in a row in the data.
        eos_token_id: token or tokens that end a response, for rewards that name `truncated`.
        prefilled: whether the chat template opens the think block in the prompt. If the model writes `<think>` itself,
            say False: it is then taken off, since Tandem's rewards look at what follows it.
        columns: the dataset's columns; with them, rewards that name a column which it lacks are refused here and now
            instead of at the first step.

    Raises:
        RewardError: as `rewards.build`.
    """
    found = read_reward_file(rewards)
    scorer = _Scorer(
        found,
        found.build(columns),
        mode=mode,
        reference=reference,
        num_generations=num_generations,
        eos_token_ids=_ids(eos_token_id),
        prefilled=prefilled,
    )
    return [scorer.function(label) for label in scorer.rewards.names] if separate else [scorer.function(None)]


def trl_reward_weights(rewards: str | Path) -> list[float]:
    """Return the list for `GRPOConfig(reward_weights=...)`, for `trl_reward_funcs(..., separate=True)`."""
    return list(read_reward_file(rewards).build().weights.values())


class _Scorer:
    """Scores TRL's batches; the functions of one reward file share it, so that each batch is scored once."""

    def __init__(
        self,
        found: RewardFile,
        rewards: RewardSet,
        *,
        mode: str | None,
        reference: str,
        num_generations: int | None,
        eos_token_ids: frozenset[int],
        prefilled: bool,
    ) -> None:
        self.found = found
        self.rewards = rewards
        self.mode = mode
        self.reference = reference
        self.num_generations = num_generations
        self.eos_token_ids = eos_token_ids
        self.prefilled = prefilled
        self._batch: Any = None
        self._scores: list[Score] = []
        self._served: set[str | None] = set()

    def function(self, label: str | None) -> RewardFunction:
        """Return the function of one reward, or of the total."""

        def score(
            prompts: Sequence[Any], completions: Sequence[Any], completion_ids: Any = None, **batch: Any
        ) -> list[float | None]:
            scores = self._once(label, prompts, completions, completion_ids, batch)
            if label is not None:
                return [item.value(label) for item in scores]
            self._log(scores, batch.get("log_metric"), batch.get("log_extra"))
            # None = nothing applies: TRL then leaves the response out of its group's baseline.
            return [item.total if _applies(item) else None for item in scores]

        score.__name__ = label or "total"
        return score

    def _once(
        self, label: str | None, prompts: Sequence[Any], completions: Sequence[Any], ids: Any, batch: Mapping[str, Any]
    ) -> list[Score]:
        """Score a batch for the first function that TRL calls with it; the others get the same scores."""
        if self._batch is not completions or label in self._served:
            groups = self._groups(self._samples(prompts, completions, ids, batch), prompts)
            self._scores = [item for group in self.rewards.score(groups) for item in group]
            self._batch, self._served = completions, set()
        self._served.add(label)
        return self._scores

    def _samples(
        self, prompts: Sequence[Any], completions: Sequence[Any], ids: Any, batch: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        columns = {key: values for key, values in batch.items() if key not in NOT_COLUMNS}
        self._check_columns(columns)
        return [
            make_sample(
                last_text(completions[index]),
                mode=row.get("mode", self.mode),
                modes=self.found.modes,
                prefilled=self.prefilled,
                columns=row,
                prompt=last_text(prompts[index]),
                reference=row.get(self.reference),
                **self._of_ids(None if ids is None else ids[index]),
            )
            for index, row in enumerate(_rows(columns, len(completions)))
        ]

    def _of_ids(self, ids: Any) -> dict[str, Any]:
        if ids is None:
            return {}
        ids = list(plain(ids))
        ended = {"truncated": not ids or ids[-1] not in self.eos_token_ids} if self.eos_token_ids else {}
        return {"response_ids": ids, **ended}

    def _check_columns(self, columns: Mapping[str, Any]) -> None:
        needs = self.rewards.needs
        if "reference" in needs and self.reference not in columns:
            raise RewardError(
                f"reward {needs['reference']!r} needs the right answer, and the dataset has no column "
                f"{self.reference!r} (it has {', '.join(columns) or 'none'}): say reference='COLUMN'."
            )
        if "truncated" in needs and not self.eos_token_ids:
            raise RewardError(
                f"reward {needs['truncated']!r} needs `truncated`, which TRL does not pass: say "
                "eos_token_id=tokenizer.eos_token_id."
            )

    def _groups(self, samples: list[dict[str, Any]], prompts: Sequence[Any]) -> list[list[dict[str, Any]]]:
        """Return the responses to one prompt together: those in a row with equal prompts, modes and references."""
        if not self.rewards.group_names:
            return [samples]
        keys = [(prompts[i], sample["mode"], sample["reference"]) for i, sample in enumerate(samples)]
        runs = [[index for index, _ in run] for _, run in groupby(enumerate(keys), key=lambda item: item[1])]
        size = self.num_generations
        broken = [len(run) for run in runs if size and len(run) % size]
        if broken:
            raise RewardError(
                f"group reward {self.rewards.group_names[0]!r} needs all {size} responses to a prompt at once, and "
                f"this process has {broken[0]}: make per_device_train_batch_size x steps_per_generation a multiple of "
                "num_generations (for evaluation, num_generations_eval must be equal to it)."
            )
        pieces = [run[at : at + (size or len(run))] for run in runs for at in range(0, len(run), size or len(run))]
        return [[samples[index] for index in piece] for piece in pieces]

    def _log(self, scores: Sequence[Score], log_metric: Any, log_extra: Any) -> None:
        for label in self.rewards.names:
            values = [item.value(label) for item in scores]
            applied = [value for value in values if value is not None]
            if log_metric is not None and applied:
                log_metric(f"reward/{label}", sum(applied) / len(applied))
            if log_extra is not None:
                log_extra(label, values)


def _rows(columns: Mapping[str, Sequence[Any]], count: int) -> Iterator[dict[str, Any]]:
    for index in range(count):
        yield {key: plain(values[index]) for key, values in columns.items()}


def _applies(score: Score) -> bool:
    return any(value is not None for value in score.breakdown.values())


def _ids(value: int | Sequence[int] | None) -> frozenset[int]:
    return frozenset([value] if isinstance(value, int) else value or ())
