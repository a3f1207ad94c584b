"""`preference`: what a reward model of human preference says, R~_rm of MiniCPM-V 4.5 (arXiv 2509.18154 s2.4, App. A).

    R  = R_acc + R_format + R_rep + 1/2 * R~_rm
    R~_rm = (R_rm - mean(R_rm)) / std(R_rm)      over the responses to the same prompt

The model sees the prompt and the final answer only, never the thinking (`rewards.conversation`). All responses of a
step are scored in one call, equal texts once. In the breakdown `preference` is R~_rm, and
`preference_raw` is R_rm, with weight 0; `rewards.standardise` says what becomes of a group without spread.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from rewards.conversation import ConversationEncoder
from rewards.registry import RewardError, reward

BACKENDS = ("transformers", "vllm")
DTYPES = ("auto", "float32", "bfloat16", "float16")
MIN_LENGTH = 32


class Scorer(Protocol):
    """A reward model that is loaded."""

    def score(self, texts: Sequence[Sequence[int]]) -> list[float]:
        """Return one number per text of token ids."""


@reward("preference", weight=0.5, batch=True, standardise=True)
class Preference:
    """The reward: checks its checkpoint when it is built, loads it when it first scores."""

    def __init__(
        self,
        *,
        model: str | Path | None = None,
        backend: str = "transformers",
        device: str = "auto",
        dtype: str = "auto",
        max_length: int = 4096,
        batch_tokens: int = 16_384,
        gpu_memory_utilization: float = 0.2,
        trust_remote_code: bool = False,
    ) -> None:
        """Check the arguments and the checkpoint; no weights are loaded.

        Args:
            model: folder of an `AutoModelForSequenceClassification` checkpoint with one output, or a run directory of
                the recipe `reward_model`.
            backend: transformers, in this process; or vllm, its pooling runner in a process of its own.
            device: of torch, such as `cuda:1`; auto = the first GPU, the CPU without one. vLLM chooses its own.
            dtype: of the weights: auto (bf16 on a GPU, else fp32), float32, bfloat16 or float16.
            max_length: longest text in tokens; a longer one loses the end of its answer.
            batch_tokens: most tokens of a batch, padding included.
            gpu_memory_utilization: share of a GPU's memory that the vllm backend takes.
            trust_remote_code: run Python code that comes with the checkpoint; leave it off unless you have read it.

        Raises:
            RewardError: no such folder, no reward model in it, weights that are not safetensors, code of its own.
        """
        if model is None:
            raise RewardError("`model` is missing: set `args: {model: FOLDER}` to a reward model's checkpoint.")
        _check_arguments(locals())
        self._folder = find_checkpoint(model)
        config = check_checkpoint(self._folder, trust_remote_code)
        self._tokenizer = load_tokenizer(self._folder, trust_remote_code)
        self._max_length = min(max_length, positions(config), self._tokenizer.model_max_length)
        self._encoder = ConversationEncoder(self._tokenizer, self._max_length)
        self._backend = backend
        self._options: dict[str, Any] = {
            "dtype": dtype,
            "batch_tokens": batch_tokens,
            "trust_remote_code": trust_remote_code,
            "pad": _padding(config, self._tokenizer),
        }
        if backend == "vllm":
            self._options |= {"max_length": self._max_length, "gpu_memory_utilization": gpu_memory_utilization}
        else:
            self._options |= {"device": device}
        self._scorer: Scorer | None = None

    def __call__(
        self, *, prompt: Sequence[Any], answer: Sequence[str | None], messages: Sequence[Any] | None = None
    ) -> list[float]:
        """Return R_rm of every response of a step.

        Args:
            prompt: [N] the last message of each prompt.
            answer: [N] each response without its thinking.
            messages: [N] the whole prompt of each, where the samples carry it.
        """
        prompts = messages or [[{"role": "user", "content": text}] for text in prompt]
        return self.score(prompts, answer)

    def score(self, prompts: Sequence[Sequence[Mapping[str, Any]]], answers: Sequence[str | None]) -> list[float]:
        """Return R_rm of each answer to the prompt of the same place; equal texts are scored once."""
        texts = [self._encoder.encode(turns, answer) for turns, answer in zip(prompts, answers, strict=True)]
        if self._scorer is None:
            self._scorer = self._load()
        unique = list(dict.fromkeys(texts))
        scores = dict(zip(unique, self._scorer.score(unique), strict=True))
        return [scores[text] for text in texts]

    def close(self) -> None:
        """Give the model's memory, or its process, back; it is loaded again when needed."""
        close = getattr(self._scorer, "close", None)
        self._scorer = None
        if close is not None:
            close()

    def _load(self) -> Scorer:
        if self._backend == "vllm":
            from rewards.preference_vllm import VllmPreferenceModel

            return VllmPreferenceModel(self._folder, **self._options)
        from rewards.preference_model import PreferenceModel

        return PreferenceModel(self._folder, **self._options)


preference = Preference


def find_checkpoint(model: str | Path) -> Path:
    """Return the checkpoint's folder: the one named, or `model/` in a run directory.

    Raises:
        RewardError: there is no such folder, or no checkpoint in it.
    """
    folder = Path(model).expanduser()
    if not folder.is_dir():
        raise RewardError(
            f"`model` is {str(model)!r}, and there is no such folder: give the folder of a reward model's checkpoint, "
            "or the run directory of `python -m recipes.reward_model`."
        )
    found = next((place for place in (folder, folder / "model") if (place / "config.json").is_file()), None)
    if found is None:
        raise RewardError(f"`model` is {str(model)!r}, and that folder is no checkpoint: it has no config.json.")
    return found


def check_checkpoint(folder: Path, trust_remote_code: bool) -> dict[str, Any]:
    """Return a reward model's configuration.

    Raises:
        RewardError: it is no reward model, its weights are not safetensors, or it needs code of its own.
    """
    try:
        config = json.loads((folder / "config.json").read_text())
        architecture = str((config.get("architectures") or ["none"])[0])
    except (ValueError, AttributeError, UnicodeDecodeError) as error:
        raise RewardError(f"{folder / 'config.json'} is no model configuration ({error}): save it again.") from None
    _refuse_remote_code(folder, config, trust_remote_code)
    own_class = trust_remote_code and "AutoModelForSequenceClassification" in config.get("auto_map", {})
    labels = len(config["id2label"]) if config.get("id2label") else config.get("num_labels", 2)
    if not own_class and (not architecture.endswith("ForSequenceClassification") or labels != 1):
        raise RewardError(
            f"the checkpoint in {folder} is a {architecture} with {labels} labels, and a reward model is a "
            "...ForSequenceClassification with 1: train one with `python -m recipes.reward_model`."
        )
    if not any(folder.glob("*.safetensors")):
        raise RewardError(
            f"the reward model in {folder} has no *.safetensors file, and other weights are not loaded since they can "
            "run code: save it again with `save_pretrained`."
        )
    return config


def load_tokenizer(folder: Path, trust_remote_code: bool) -> Any:
    """Return the tokenizer of a checkpoint.

    Raises:
        RewardError: there is none, or it needs code of its own.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code, local_files_only=True)
    except (ValueError, OSError) as error:
        first = str(error).strip().splitlines()[0]
        raise RewardError(f"the tokenizer of the reward model in {folder} cannot be loaded ({first}).") from error


def _refuse_remote_code(folder: Path, config: Mapping[str, Any], trust_remote_code: bool) -> None:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    if config.get("auto_map") and config.get("model_type") not in CONFIG_MAPPING_NAMES and not trust_remote_code:
        raise RewardError(
            f"the reward model in {folder} comes with Python code of its own (auto_map in its config.json), which is "
            "not run unasked: read that code, then set `trust_remote_code: true`."
        )


def positions(config: Mapping[str, Any]) -> int:
    """Return the most tokens that the model has positions for."""
    text = config.get("text_config") or config
    return int(text.get("max_position_embeddings") or 10**9)


def _padding(config: Mapping[str, Any], tokenizer: Any) -> int:
    """Return the token id to pad with: the checkpoint's, or as TRL trains, the tokenizer's or the end of text."""
    text = config.get("text_config") or config
    candidates = (text.get("pad_token_id"), tokenizer.pad_token_id, tokenizer.eos_token_id, 0)
    return next(int(token) for token in candidates if token is not None)


def _check_arguments(given: Mapping[str, Any]) -> None:
    if given["backend"] not in BACKENDS:
        raise RewardError(f"`backend` must be {' or '.join(BACKENDS)}, got {given['backend']!r}.")
    if given["dtype"] not in DTYPES:
        raise RewardError(f"`dtype` must be {', '.join(DTYPES[:-1])} or {DTYPES[-1]}, got {given['dtype']!r}.")
    for key, least in (("max_length", MIN_LENGTH), ("batch_tokens", 1)):
        value = given[key]
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise RewardError(f"`{key}` must be a number of tokens of at least {least}, got {value!r}.")
    share = given["gpu_memory_utilization"]
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1:
        raise RewardError(f"`gpu_memory_utilization` must be a share above 0 and at most 1, got {share!r}.")
    if not isinstance(given["trust_remote_code"], bool):
        raise RewardError(f"`trust_remote_code` must be true or false, got {given['trust_remote_code']!r}.")
