"""The vLLM engine against transformers: generation, scoring, weights. A real engine runs."""

import itertools
import math
import time
from dataclasses import replace

import pytest
import torch

from rollouts import LongMode, Sampling, ShortMode, Status, VLLMEngine
from tests.rollouts.conftest import (
    CONFIG,
    LONG,
    largest_gap,
    make_requests,
    model_logprobs,
    model_of,
    perturbed,
)
from tests.tiny import make_tiny_model

pytestmark = pytest.mark.slow


def test_logprobs_are_those_of_the_model(engine, tiny):
    rollouts = engine.generate(make_requests())
    assert largest_gap(model_of(tiny), rollouts) < 1e-3


@pytest.mark.parametrize("temperature", [0.6, 1.5])
def test_logprobs_are_at_the_sampling_temperature(engine, tiny, temperature):
    rollouts = engine.generate(make_requests(sampling=Sampling(temperature=temperature)))
    assert largest_gap(model_of(tiny), rollouts, temperature) < 1e-3
    assert largest_gap(model_of(tiny), rollouts) > 0.1


def test_records_come_back_in_order_and_complete(engine):
    requests = make_requests(rows=3, samples=2)[::-1]
    rollouts = engine.generate(requests)
    for request, rollout in zip(requests, rollouts, strict=True):
        assert (rollout.row, rollout.sample, rollout.mode) == (request.row, request.sample, request.mode.name)
        assert rollout.prompt_ids == request.prompt_ids
        assert len(rollout.logprobs) == len(rollout.response_ids) > 0
        assert rollout.policy_version == 0
        assert (rollout.thinking is None) == (rollout.mode == "short")
        assert rollout.response == engine.tokenizer.decode(rollout.response_ids, skip_special_tokens=True)


def test_every_mode_has_its_own_budget_in_one_batch(engine):
    rollouts = engine.generate(make_requests(ignore_eos=True))
    assert {(r.mode, len(r.response_ids)) for r in rollouts} == {("short", 12), ("long", 40)}
    assert {r.status for r in rollouts} == {Status.TRUNCATED}


def test_end_of_turn_is_kept_and_ends_the_response(engine):
    eos = engine.tokenizer.eos_token_id
    rollouts = engine.generate(make_requests(rows=8, samples=8, modes=[ShortMode(max_tokens=100)]))
    finished = [r for r in rollouts if r.status is Status.FINISHED]
    assert finished
    assert all(r.response_ids.index(eos) == len(r.response_ids) - 1 for r in finished)
    assert all(eos not in r.response_ids and len(r.response_ids) == 100 for r in rollouts if r not in finished)


def test_budget_is_cut_by_the_context(engine):
    [rollout] = engine.generate(make_requests(1, 1, prompt_tokens=182, modes=[LONG], ignore_eos=True))
    assert len(rollout.response_ids) == CONFIG.max_model_len - 182


@pytest.mark.parametrize("tokens", [0, 192, 500])
def test_prompt_that_does_not_fit_is_refused_before_anything_runs(engine, tokens):
    request = replace(make_requests(1, 1)[0], row=41, prompt_ids=tuple([5] * tokens))
    with pytest.raises(ValueError, match=rf"row 41: the prompt has {tokens} tokens, but engine.max_model_len is 192"):
        engine.generate([*make_requests(), request])


def test_no_requests(engine):
    assert engine.generate([]) == []


def test_responses_of_one_prompt_share_its_blocks(engine):
    rollouts = engine.generate(make_requests(rows=2, samples=4, prompt_tokens=67))
    assert [r.cached_tokens for r in rollouts] == [0, 64, 64, 64] * 2


def test_same_requests_give_the_same_bits_after_other_work_and_in_a_new_process(engine, tiny):
    requests = make_requests(rows=5, samples=8)  # more than max_num_seqs
    first = engine.generate(requests)
    engine.generate(make_requests(rows=3, step=9, prompt_tokens=80))
    engine.load_weights(perturbed(tiny).named_parameters(), 5)
    assert [r.response_ids for r in engine.generate(requests)] != [r.response_ids for r in first]
    engine.load_weights(model_of(tiny).named_parameters(), 0)
    assert engine.generate(requests) == first
    with VLLMEngine(tiny, CONFIG) as fresh:
        assert fresh.generate(requests) == first


def test_seed_decides_the_response(engine):
    requests = make_requests(rows=1, samples=6, modes=[LONG])
    assert len({r.response_ids for r in engine.generate(requests)}) == 6
    same = [replace(request, seed=3) for request in requests]
    assert len({r.response_ids for r in engine.generate(same)}) == 1


def test_first_tokens_follow_the_distribution_of_the_model(engine, tiny):
    count = 3000
    base = make_requests(1, 1, modes=[ShortMode(max_tokens=1)], prompt_tokens=33)[0]
    rollouts = engine.generate([replace(base, sample=i, seed=i) for i in range(count)])  # neighbouring seeds
    expected_V = count * model_logprobs(model_of(tiny), rollouts[0])[0].exp()
    counts_V = torch.tensor([r.response_ids[0] for r in rollouts]).bincount(minlength=len(expected_V))
    frequent = expected_V >= 5
    expected = torch.cat([expected_V[frequent], expected_V[~frequent].sum()[None]])
    observed = torch.cat([counts_V[frequent], counts_V[~frequent].sum()[None]])
    statistic = ((observed - expected) ** 2 / expected).sum().item()
    freedom = len(expected) - 1
    assert freedom > 20
    assert statistic < freedom + 5 * math.sqrt(2 * freedom)  # chi-square: mean k, variance 2k


@pytest.mark.parametrize(
    "sampling",
    [Sampling(top_k=3), Sampling(top_p=0.5), Sampling(min_p=0.3), Sampling(temperature=0.7, top_k=5, min_p=0.1)],
)
def test_truncation_limits_the_tokens_but_not_the_logprobs(engine, tiny, sampling):
    model = model_of(tiny)
    rollouts = engine.generate(make_requests(sampling=sampling))
    assert largest_gap(model, rollouts, sampling.temperature) < 1e-3
    for rollout in rollouts:
        probs_TV = model_logprobs(model, rollout, sampling.temperature).exp()
        chosen_T = probs_TV.gather(1, torch.tensor(rollout.response_ids)[:, None])[:, 0]
        above_T = (probs_TV * (probs_TV > chosen_T[:, None])).sum(1)
        rank_T = (probs_TV > chosen_T[:, None]).sum(1)
        if sampling.top_k:
            assert rank_T.max() < sampling.top_k
        assert (above_T < sampling.top_p + 1e-4).all()
        assert (chosen_T >= sampling.min_p * probs_TV.amax(1) - 1e-6).all()


def test_temperature_zero_takes_the_most_likely_token_beside_sampled_ones(engine, tiny):
    requests = make_requests(rows=2, samples=2)
    mixed = [replace(r, sampling=Sampling(temperature=0.0)) if r.sample == 0 else r for r in requests]
    model = model_of(tiny)
    for batch in (mixed, [r for r in mixed if r.sample == 0]):
        rollouts = engine.generate(batch)
        assert largest_gap(model, rollouts) < 1e-3
        for rollout in (r for r in rollouts if r.sample == 0):
            assert model_logprobs(model, rollout).argmax(1).tolist() == list(rollout.response_ids)
    sampled = [r for r in engine.generate(mixed) if r.sample == 1]
    assert [r.response_ids for r in sampled] == [r.response_ids for r in engine.generate(requests) if r.sample == 1]


def test_scores_are_the_models_log_probabilities(engine, tiny):
    rollouts = engine.generate(make_requests(rows=3, samples=2))
    continuations = [list(r.response_ids) for r in rollouts]
    continuations[1] = []
    scores = engine.score([r.prompt_ids for r in rollouts], continuations)
    assert scores[1] == []
    for rollout, continuation, score in zip(rollouts, continuations, scores, strict=True):
        assert score == pytest.approx(list(rollout.logprobs)[: len(continuation)], abs=1e-3)
    kept = [replace(r, logprobs=tuple(s)) for r, s in zip(rollouts, scores, strict=True) if s]
    assert largest_gap(model_of(tiny), kept) < 1e-3


@pytest.mark.parametrize(
    ("prefix", "continuation", "message"),
    [([], [5], "text 0 to score has an empty prefix"), ([5] * 100, [6] * 92, "has 100 \\+ 92 tokens")],
)
def test_texts_that_cannot_be_scored_are_refused(engine, prefix, continuation, message):
    with pytest.raises(ValueError, match=message):
        engine.score([prefix], [continuation])


def test_loaded_weights_are_used_everywhere(engine, tiny):
    model = perturbed(tiny)
    before = engine.generate(make_requests())
    engine.load_weights(model.named_parameters(), 3)
    rollouts = engine.generate(make_requests())
    assert {r.policy_version for r in rollouts} == {3}
    assert engine.version == 3
    assert largest_gap(model, rollouts) < 1e-3
    # The old weights are far away, so a stale LM head, layer or prefix cache could not pass the line above.
    assert largest_gap(model_of(tiny), rollouts) > 0.5
    assert largest_gap(model, before) > 0.5
    engine.load_weights(model.state_dict().items(), 4)  # with the second name of the tied head
    assert [r.logprobs for r in engine.generate(make_requests())] == [r.logprobs for r in rollouts]


def test_only_the_embedding_changes_and_the_tied_head_follows(engine, tiny):
    model = model_of(tiny)
    with torch.no_grad():
        model.get_input_embeddings().weight[100:] *= -1.0
    engine.load_weights(model.named_parameters(), 1)
    assert largest_gap(model, engine.generate(make_requests())) < 1e-3


def test_weights_that_do_not_fit_change_nothing(engine, tiny):
    before = engine.generate(make_requests())
    good = dict(perturbed(tiny).named_parameters())
    broken = {name: tensor for name, tensor in good.items() if name != "model.norm.weight"}
    with pytest.raises(ValueError, match=r"missing: model\.norm\.weight"):
        engine.load_weights(broken.items(), 1)
    with pytest.raises(ValueError, match=r"unknown: base_model\.x"):
        engine.load_weights({**good, "base_model.x": torch.ones(1)}.items(), 1)
    with pytest.raises(RuntimeError, match="midway"):
        engine.load_weights(_raising(good), 1)
    assert engine.version == 0
    assert engine.generate(make_requests()) == before


def _raising(named):
    yield from list(named.items())[:3]
    raise RuntimeError("midway")


def test_progress_is_told_while_it_runs(engine):
    seen = []
    requests = make_requests(rows=12, samples=16, modes=[LongMode(max_tokens=100)], ignore_eos=True)
    times = [time.monotonic()]
    engine.generate(requests, lambda done, total: (seen.append((done, total)), times.append(time.monotonic())))
    assert len(seen) >= 2
    assert seen == sorted(seen)
    assert {total for _, total in seen} == {len(requests)}
    assert max(b - a for a, b in itertools.pairwise(times)) < 3.0


@pytest.mark.parametrize(
    ("architecture", "tied", "dtype", "tolerance"),
    [
        ("llama", False, "float32", 1e-3),
        ("qwen3", True, "float32", 1e-3),
        ("gemma2", True, "float32", 1e-3),
        ("mistral", False, "float32", 1e-3),
        ("llama", True, "bfloat16", 0.3),
    ],
)
def test_sync_and_scores_for_other_architectures(tmp_path, architecture, tied, dtype, tolerance):
    path = make_tiny_model(tmp_path, architecture, tied=tied)
    with VLLMEngine(path, CONFIG.model_copy(update={"dtype": dtype})) as engine:
        model = model_of(path)
        rollouts = engine.generate(make_requests())
        assert largest_gap(model, rollouts) < tolerance
        model = perturbed(path)
        engine.load_weights(model.named_parameters(), 1)
        rollouts = engine.generate(make_requests())
        assert largest_gap(model, rollouts) < tolerance
        scores = engine.score([r.prompt_ids for r in rollouts], [r.response_ids for r in rollouts])
        assert (
            largest_gap(model, [replace(r, logprobs=tuple(s)) for r, s in zip(rollouts, scores, strict=True)])
            < tolerance
        )


def test_more_responses_than_memory_for_keys_and_values(tiny):
    requests = make_requests(rows=4, samples=8, modes=[LongMode(max_tokens=110)], ignore_eos=True)
    with VLLMEngine(tiny, CONFIG.model_copy(update={"kv_cache_gib": 40 * 32 * 1024 / 2**30})) as engine:  # 40 blocks
        rollouts = engine.generate(requests)
        assert largest_gap(model_of(tiny), rollouts) < 1e-3
        assert engine.generate(requests) == rollouts


def test_response_without_finite_logprobs_is_marked_as_failed(engine, tiny):
    model = model_of(tiny)
    with torch.no_grad():
        model.get_input_embeddings().weight[7] = float("nan")  # one row of the tied head: every softmax is NaN
    engine.load_weights(model.named_parameters(), 1)
    rollouts = engine.generate(make_requests())
    assert {r.status for r in rollouts} == {Status.FAILED}
    assert len(rollouts) == 8
