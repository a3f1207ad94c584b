"""Configuration of the RLAIF-V loop."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from base_model.config import LoraSettings
from base_model.video_settings import VideoSettings
from recipes.evaluation import EvaluationConfig
from recipes.models import ModelConfig
from recipes.reward_keys import RewardsKey
from recipes.rlaif.labelled import HallucinationConfig
from recipes.tasks import TaskConfig
from rl.claim_division import DivisionConfig
from rl.labeler_config import LabelerConfig
from rl.preference_config import PreferenceLearnerConfig, PreferenceTrainerConfig
from rl.preference_pairs import PairConfig
from rollouts.endpoint import EndpointConfig
from rollouts.engine import EngineConfig
from rollouts.modes import ModesConfig

MAY_CHANGE = {"resume", "overwrite", "rounds", "engine.threads", "engine.kv_cache_gib", "engine.timeout_s"} | {
    f"divider.endpoint.{key}" for key in ("url", "api_key_env", "timeout_s", "retries", "concurrency", "give_up_after")
}
"""Keys that may differ when a run is continued."""


class _Config(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


class CandidatesConfig(_Config):
    """How responses are sampled; the budget is that of the mode."""

    n: int = Field(10, ge=2)
    """Responses to each instruction, with the same settings and different seeds."""
    temperature: float = Field(0.7, gt=0)
    """Sampling temperature."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Nucleus; 1 = all."""
    keep_truncated: bool = False
    """Whether responses that used up their budget are judged and paired. DPO would teach to end there; so they are
    left out, and counted, unless this is set."""


class SplitterConfig(_Config):
    """The deterministic splitter, for simple declarative sentences such as small models write."""

    kind: Literal["splitter"]
    """splitter: no model; the report says so."""
    place: str = ""
    """Added to questions whether something is there, such as `in the picture`."""


class EndpointDividerConfig(_Config):
    """A model behind an OpenAI-compatible endpoint."""

    kind: Literal["endpoint"]
    """endpoint: a served model."""
    endpoint: EndpointConfig
    """Where it is, and how patiently it is asked."""
    division: DivisionConfig = DivisionConfig()
    """Sampling and attempts."""


class ModelDividerConfig(_Config):
    """A checkpoint in vLLM."""

    kind: Literal["model"]
    """model: a local checkpoint."""
    model: ModelConfig | None = None
    """The checkpoint; null = the policy of the round."""
    modes: ModesConfig = ModesConfig(mode="short")
    """modes.mode is the one it answers in; for plain chat models set short.prefill empty."""
    division: DivisionConfig = DivisionConfig()
    """Sampling and attempts."""


Divider = Annotated[SplitterConfig | EndpointDividerConfig | ModelDividerConfig, Field(discriminator="kind")]


class LabelingConfig(LabelerConfig):
    """Who checks the claims, and how it is asked."""

    model: ModelConfig | None = None
    """The labeler's checkpoint; null = the policy of the round. With a fixed one, a claim about a picture that was
    checked in one round is not asked again in the next."""
    modes: ModesConfig = ModesConfig(mode="short")
    """Template options and prefill of its short mode; for plain chat models set short.prefill empty."""


class PreferenceConfig(_Config):
    """The DPO stage; see `recipes.dpo` for the keys."""

    learner: PreferenceLearnerConfig = PreferenceLearnerConfig()
    """Loss and optimiser."""
    trainer: PreferenceTrainerConfig = PreferenceTrainerConfig(epochs=4)
    """The loop; each checkpoint that save_every leaves is evaluated."""
    lora: LoraSettings | None = None
    """Train low-rank adapters instead of all weights; only the model at the end is then evaluated."""
    gradient_checkpointing: bool = False
    """Recompute layers in the backward pass."""
    max_length: int = Field(2048, ge=8)
    """Most tokens of the prompt with either side."""
    eval_size: int = Field(50, ge=0)
    """Pairs held out; never more than a fifth of them."""


class HeldOutConfig(_Config):
    """Questions that show whether the policy still knows what it knew."""

    task: TaskConfig
    """The rows; the evaluation split is used."""
    rewards: RewardsKey
    """Rewards, or a reward file; evaluation.metric names the one that says what is right."""
    evaluation: EvaluationConfig = EvaluationConfig(temperature=0.0)
    """Samples, temperature, rows."""


class SelectionConfig(_Config):
    """Which checkpoint seeds the next round: of those within these bounds, against the model that the loop started
    from, the one with the lowest share of hallucinated objects; the round's own start where none is better."""

    length: float = Field(0.15, ge=0)
    """Largest relative change of the mean length of responses (words)."""
    accuracy_drop: float = Field(0.02, ge=0)
    """Largest fall of the held-out accuracy."""


class RlaifVConfig(_Config):
    """An RLAIF-V loop."""

    run: Path = Path("runs/rlaif_v")
    """Run directory; an existing one is never overwritten silently."""
    seed: int = 0
    """Seed of candidates, pairs and training."""
    model: ModelConfig
    """The policy to start from."""
    rounds: int = Field(4, ge=1)
    """Rounds of feedback, DPO and evaluation; a finished run goes on when it is raised and the run resumed."""
    prompts_per_round: int = Field(4000, ge=1)
    """Instructions of a round, taken in order from the training split; from its beginning again at its end."""
    instructions: TaskConfig
    """What candidates are asked for: the training split, with images, videos or text alone. References are not used."""
    modes: ModesConfig = ModesConfig(mode="short")
    """modes.mode (short or long) is the one that responses are given in; its max_tokens is their budget."""
    candidates: CandidatesConfig = CandidatesConfig()
    """How responses are sampled."""
    divider: Divider = SplitterConfig(kind="splitter")
    """Who takes responses apart into claims: `kind` is splitter, endpoint or model."""
    labeler: LabelingConfig = LabelingConfig()
    """Who checks the claims."""
    pairs: PairConfig = PairConfig()
    """How pairs are made."""
    dpo: PreferenceConfig = PreferenceConfig()
    """Training on the pairs."""
    engine: EngineConfig = EngineConfig()
    """vLLM, for all models."""
    video: VideoSettings = VideoSettings()
    """How clips are sampled and packed."""
    hallucination: HallucinationConfig | None = None
    """Labelled pictures that each checkpoint describes. null = none; then the last checkpoint within the bounds of
    accuracy goes on."""
    held_out: HeldOutConfig | None = None
    """Questions with known answers, asked before the first round and after each; null = none."""
    selection: SelectionConfig = SelectionConfig()
    """Which checkpoint seeds the next round."""
    resume: bool = False
    """Continue the run in the run directory where it stopped."""
    overwrite: bool = False
    """Delete the run that is in the run directory first."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.resume and self.overwrite:
            raise ValueError("resume and overwrite exclude each other: continue the run, or delete it and start again")
        if self.modes.mode == "hybrid":
            raise ValueError("modes.mode is hybrid: responses are compared within one mode, so set short or long")
        if isinstance(self.divider, ModelDividerConfig) and self.divider.modes.mode == "hybrid":
            raise ValueError("divider.modes.mode is hybrid: set it to short or long, in which claims are to be written")
        return self
