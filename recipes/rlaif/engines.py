"""One engine process at a time: a stage asks for the model that it needs, and gets the running engine if it is that."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from rollouts.engine import EngineConfig, VLLMEngine

if TYPE_CHECKING:
    from recipes.models import ModelConfig


class Served(NamedTuple):
    """A model in vLLM."""

    path: Path
    engine: VLLMEngine
    processor: Any
    """Processor of a vision-language model, tokenizer of a language model."""


class EngineRoom:
    """Room for one engine. A context manager; `close` may be called at any time and makes room for training.

    Example::

        with EngineRoom(config.engine, run / "engine.log") as room:
            served = room.serve(ModelConfig(path="models/base"))
            room.serve(ModelConfig(path="models/base")) is served  # True
    """

    def __init__(self, config: EngineConfig, log_path: Path) -> None:
        self.config = config
        self._log_path = log_path
        self._served: Served | None = None

    def serve(self, model: ModelConfig) -> Served:
        """The model's engine and processor; an engine of another model is closed first.

        Raises:
            ValueError: There is no such model, or vLLM cannot take it.
        """
        from base_model.checkpoints import load_processor
        from recipes.models import resolve_model

        path = resolve_model(model)
        if self._served is None or self._served.path != path:
            self.close()
            processor = load_processor(path, trust_remote_code=model.trust_remote_code)
            tokenizer = getattr(processor, "tokenizer", processor)
            engine = VLLMEngine(path, self.config, tokenizer=tokenizer, log_path=self._log_path)
            self._served = Served(path, engine, processor)
        return self._served

    def close(self) -> None:
        """End the engine, if one runs."""
        if self._served is not None:
            self._served.engine.close()
            self._served = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
