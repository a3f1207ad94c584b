"""How responses are produced and scored by vLLM: modes, prompts, records, engine."""

from rollouts.engine import Engine, EngineConfig, VLLMEngine
from rollouts.modes import LongMode, Mode, ModeSampler, ModesConfig, ShortMode
from rollouts.process import EngineError
from rollouts.prompts import render_prompt, render_text, split_response
from rollouts.records import Request, Rollout, Sampling, Status, request_seed

__all__ = [
    "Engine",
    "EngineConfig",
    "EngineError",
    "LongMode",
    "Mode",
    "ModeSampler",
    "ModesConfig",
    "Request",
    "Rollout",
    "Sampling",
    "ShortMode",
    "Status",
    "VLLMEngine",
    "render_prompt",
    "render_text",
    "request_seed",
    "split_response",
]
