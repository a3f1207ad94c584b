"""Seeds and sampling settings."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollouts import Sampling, request_seed


def test_seed_is_stable_across_machines_and_processes():
    assert request_seed(0, 3, 7, 1) == 1729928002


@given(st.tuples(*[st.integers(0, 2**40)] * 4))
def test_seed_fits_in_31_bits(parts):
    assert 0 <= request_seed(*parts) < 2**31


def test_seeds_of_a_run_differ():
    seeds = {request_seed(0, step, row, sample) for step in range(20) for row in range(20) for sample in range(8)}
    assert len(seeds) == 20 * 20 * 8  # 3200 of 2**31: a collision has a chance of 0.2 %, and this is one fixed draw


def test_digits_of_neighbouring_parts_are_not_confused():
    assert request_seed(0, 1, 11, 0) != request_seed(0, 11, 1, 0)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", -0.1),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("top_k", -1),
        ("min_p", 2.0),
        ("temperature", float("nan")),
    ],
)
def test_impossible_sampling_is_refused_by_name(field, value):
    with pytest.raises(ValueError, match=rf"sampling\.{field} is {value}"):
        Sampling(**{field: value})


def test_importing_the_package_loads_neither_torch_nor_vllm():
    code = "import sys, rollouts; print([m for m in ('torch', 'vllm', 'transformers') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
