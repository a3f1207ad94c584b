"""What torchrun and accelerate launch say in the environment, and who is to hear it."""

import pytest

from rl.launch import launched_processes, launched_rank, refuse_launcher_settings
from rl.processes import join
from rollouts.process import worker_environment

TORCHRUN = {
    "RANK": "1",
    "WORLD_SIZE": "2",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "2",
    "GROUP_RANK": "0",
    "ROLE_RANK": "1",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "29500",
    "TORCHELASTIC_USE_AGENT_STORE": "True",
    "TORCHELASTIC_RUN_ID": "none",
}


def test_a_launch_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in TORCHRUN:
        monkeypatch.delenv(name, raising=False)
    assert (launched_processes(), launched_rank()) == (1, 0)
    with join() as processes:
        assert (processes.count, processes.leads) == (1, True)
        assert processes.scatter(["own"]) == "own"
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    assert (launched_processes(), launched_rank()) == (2, 1)


def test_vllm_does_not_take_itself_for_a_training_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """TORCHELASTIC_USE_AGENT_STORE alone makes torch wait for a store that nobody opens."""
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("LOCALE_OF_MINE", "kept")
    environment = worker_environment(1, eager=True)
    assert not set(TORCHRUN) & set(environment)
    assert environment["LOCALE_OF_MINE"] == "kept"


@pytest.mark.parametrize(("name", "what"), [("ACCELERATE_USE_FSDP", "FSDP"), ("ACCELERATE_USE_DEEPSPEED", "DeepSpeed")])
def test_settings_of_accelerate_that_wrap_the_model_are_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, what: str
) -> None:
    monkeypatch.setenv(name, "false")
    refuse_launcher_settings()
    monkeypatch.setenv(name, "true")
    with pytest.raises(ValueError, match=f"accelerate launch was told to use {what}.*kind: fsdp"):
        refuse_launcher_settings()
