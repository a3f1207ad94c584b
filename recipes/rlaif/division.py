"""Divide: the claims of every candidate, by the splitter, a local checkpoint or an endpoint.

What a model has divided is kept in `divisions.jsonl` of the run, by text and model: a killed stage, an equal response
and a later round do not pay again. An endpoint's failures are not kept, since the next attempt may succeed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recipes.rlaif.config import Divider, EndpointDividerConfig, ModelDividerConfig, SplitterConfig
from rl.claim_division import divide_responses
from rl.claim_splitter import split_claims
from rl.claims import Claim, ClaimKind, Division, Dropped
from rl.disk_cache import DiskCache, content_key
from rollouts.endpoint import Usage

if TYPE_CHECKING:
    from recipes.rlaif.engines import Served

CACHE = "divisions.jsonl"
RESPONSES_PER_CALL = 64
"""Responses that a local model divides in one call, whose divisions are kept together: a resumed stage makes the same
calls."""

OnProgress = Callable[[int, int], None]


def divide(
    responses: Sequence[str],
    config: Divider,
    run: Path,
    serve: Callable[[], Served],
    *,
    seed: int = 0,
    on_progress: OnProgress | None = None,
) -> tuple[list[Division], Usage]:
    """A division of every response, in order, and what the model was asked for them now.

    Args:
        responses: The texts; equal ones are divided once.
        config: Who divides.
        run: The run directory, with the cache.
        serve: Gives the engine of a divider of kind model.
        seed: Of the divider's sampling.
        on_progress: Called with (done, total) responses that a model divides.
    """
    texts = list(dict.fromkeys(responses))
    if isinstance(config, SplitterConfig):
        found = {text: split_claims(text, config.place) for text in texts}
        return [found[text] for text in responses], Usage()
    with DiskCache(run / CACHE) as cache:
        if isinstance(config, EndpointDividerConfig):
            found, usage = _by_endpoint(texts, config, cache, seed, on_progress)
        else:
            found, usage = _by_model(texts, config, cache, serve(), seed, on_progress)
    return [found[text] for text in responses], usage


def _by_endpoint(
    texts: Sequence[str], config: EndpointDividerConfig, cache: DiskCache, seed: int, on_progress: OnProgress | None
) -> tuple[dict[str, Division], Usage]:
    """Each division is kept as soon as it is known."""
    from rollouts.endpoint_client import Endpoint

    identity = [config.endpoint.url, config.endpoint.model, config.division.model_dump(mode="json"), seed]
    keys = {text: content_key("division", identity, text) for text in texts}
    found = {text: _division(cache.get(keys[text])) for text in texts if keys[text] in cache}
    missing = [text for text in texts if text not in found]
    model = Endpoint(config.endpoint)

    def settle(number: int, division: Division) -> None:
        found[missing[number]] = division
        if division.problem is None:
            cache.add({keys[missing[number]]: asdict(division)})
        if on_progress:
            on_progress(len(found), len(texts))

    divide_responses(missing, model, config.division, seed=seed, on_division=settle)
    return found, model.usage


def _by_model(
    texts: Sequence[str],
    config: ModelDividerConfig,
    cache: DiskCache,
    served: Served,
    seed: int,
    on_progress: OnProgress | None,
) -> tuple[dict[str, Division], Usage]:
    """Divisions are kept call by call."""
    from rl.labeler import checkpoint_identity
    from rollouts.engine_chat import EngineChat

    mode = config.modes.active()[0]
    settings = [config.division.model_dump(mode="json"), mode.model_dump(mode="json"), seed]
    identity = [checkpoint_identity(served.path, served.engine.config.dtype), settings]
    keys = {text: content_key("division", identity, text) for text in texts}
    found = {text: _division(cache.get(keys[text])) for text in texts if keys[text] in cache}
    chat = EngineChat(served.engine, served.engine.tokenizer, mode, max_model_len=served.engine.config.max_model_len)
    for start in range(0, len(texts), RESPONSES_PER_CALL):
        missing = [text for text in texts[start : start + RESPONSES_PER_CALL] if text not in found]
        divisions = divide_responses(missing, chat, config.division, seed=seed)
        made = dict(zip(missing, divisions, strict=True))
        cache.add({keys[text]: asdict(division) for text, division in made.items()})
        found |= made
        if on_progress:
            on_progress(len(found), len(texts))
    return found, chat.usage


def _division(record: dict[str, Any]) -> Division:
    """A division as it was before it became JSON."""
    return Division(
        claims=tuple(
            Claim(text=each["text"], question=each["question"], kind=ClaimKind(each["kind"]))
            for each in record["claims"]
        ),
        dropped=tuple(Dropped(**each) for each in record["dropped"]),
        problem=record["problem"],
        attempts=record["attempts"],
    )
