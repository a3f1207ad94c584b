"""Training goes on bit for bit, nothing half-written is ever found, and what does not fit is refused by name."""

import json
import random
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from torch import Tensor
from torch.optim import Optimizer
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
    get_scheduler,
)

from rl.checkpoint import latest_checkpoint, load_checkpoint, save_checkpoint
from rl.files import WriteError
from tests.conftest import RunOnSmallDisk

SIZES: dict[str, Any] = {
    "vocab_size": 32,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
}
IDS = torch.arange(24).view(3, 8) % 32


def llama(*, tied: bool = True, dropout: float = 0.0, **sizes: int) -> LlamaForCausalLM:
    return LlamaForCausalLM(
        LlamaConfig(
            **{**SIZES, **sizes}, tie_word_embeddings=tied, attention_dropout=dropout, attn_implementation="eager"
        )
    )


def mixture() -> Qwen3MoeForCausalLM:
    """Its experts are one tensor in memory and many in the file."""
    return Qwen3MoeForCausalLM(
        Qwen3MoeConfig(**SIZES, head_dim=8, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16)
    )


def lora() -> Any:
    torch.manual_seed(0)  # the base model is not in the checkpoint
    return get_peft_model(llama(), LoraConfig(r=2, target_modules=["q_proj", "v_proj"], lora_dropout=0.1))


def adamw(model: Any, **options: Any) -> torch.optim.AdamW:
    return torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2, **options)


class Training:
    """A tiny training run, whose losses show every bit of its state."""

    def __init__(self, model: Any, optimizer: Callable[[Any], Any] = adamw) -> None:
        self.model = model.train()
        self.optimizer = optimizer(model)
        self.scheduler = get_scheduler("cosine", self.optimizer, num_warmup_steps=2, num_training_steps=12)

    def step(self) -> float:
        loss = self.model(input_ids=IDS, labels=IDS).loss
        loss.backward()
        self.optimizer.step()
        self.scheduler.step()
        self.optimizer.zero_grad()
        return loss.item()

    def save(self, run: Path, step: int = 3, **options: Any) -> Path:
        state = {"scheduler": self.scheduler.state_dict(), "position": 7}
        return save_checkpoint(
            run, step=step, model=self.model, tokenizer=None, optimizer=self.optimizer, state=state, **options
        )

    def load(self, path: Path) -> dict[str, Any]:
        state = load_checkpoint(path, model=self.model, optimizer=self.optimizer)
        self.scheduler.load_state_dict(state["scheduler"])
        return state


def weights(model: Any) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def assert_same_weights(first: Any, second: Any) -> None:
    ours, theirs = weights(first), weights(second)
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name


def hyper_parameters(optimizer: Any) -> list[dict[str, Any]]:
    return [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]


def assert_continues_exactly(run: Path, build: Callable[[], Any], optimizer: Callable[[Any], Any]) -> None:
    """Three steps, save, three steps; then the same from the checkpoint, in a model that was initialised otherwise."""
    torch.manual_seed(1)
    straight = Training(build(), optimizer)
    for _ in range(3):
        straight.step()
    path = straight.save(run)
    expected = [straight.step() for _ in range(3)]
    torch.manual_seed(2)
    resumed = Training(build(), optimizer)
    resumed.step()  # a used optimizer forgets what it had
    state = resumed.load(path)
    assert (state["step"], state["position"]) == (3, 7)
    assert [resumed.step() for _ in range(3)] == expected
    assert resumed.scheduler.get_last_lr() == straight.scheduler.get_last_lr()
    assert hyper_parameters(resumed.optimizer) == hyper_parameters(straight.optimizer)
    assert_same_weights(resumed.model, straight.model)


# --- bit-exact continuation ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "build",
    [
        pytest.param(llama, id="tied"),
        pytest.param(lambda: llama(tied=False), id="untied"),
        pytest.param(lambda: llama(dropout=0.3), id="dropout"),
        pytest.param(lambda: llama().to(torch.bfloat16), id="bfloat16"),
        pytest.param(mixture, id="mixture"),
        pytest.param(lora, id="lora"),
    ],
)
def test_training_continues_bit_for_bit(tmp_path: Path, build: Callable[[], Any]) -> None:
    assert_continues_exactly(tmp_path, build, lambda model: adamw(model, fused=True))


def two_groups(model: Any) -> Optimizer:
    """Weight decay on matrices only, in an order that is not the model's."""
    parameters = list(model.parameters())[::-1]
    groups = [
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0, "lr": 1e-3},
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": 0.1, "betas": (0.8, 0.9)},
    ]
    return torch.optim.AdamW(groups, lr=1e-2)


@pytest.mark.parametrize(
    "optimizer",
    [
        pytest.param(lambda model: adamw(model, foreach=True, amsgrad=True), id="amsgrad"),
        pytest.param(two_groups, id="groups"),
        pytest.param(lambda model: torch.optim.SGD(model.parameters(), lr=0.1), id="stateless"),
        pytest.param(lambda model: torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), id="momentum"),
        pytest.param(lambda model: torch.optim.Adafactor(model.parameters(), lr=0.1), id="adafactor"),
        pytest.param(lambda model: torch.optim.NAdam(model.parameters(), lr=1e-2), id="nadam"),
        pytest.param(lambda model: Accelerator(cpu=True).prepare_optimizer(adamw(model)), id="accelerate"),
    ],
)
def test_any_torch_optimizer_continues_bit_for_bit(tmp_path: Path, optimizer: Callable[[Any], Any]) -> None:
    assert_continues_exactly(tmp_path, llama, optimizer)


def test_optimizer_state_in_another_precision_than_the_weights_keeps_it(tmp_path: Path) -> None:
    training = Training(llama().to(torch.bfloat16))
    training.step()
    for values in training.optimizer.state.values():
        values["exp_avg"] = torch.randn_like(values["exp_avg"], dtype=torch.float32)
    path = training.save(tmp_path)
    other = Training(llama().to(torch.bfloat16))
    other.load(path)
    pairs = zip(training.optimizer.state.values(), other.optimizer.state.values(), strict=True)
    for saved, loaded in pairs:
        assert loaded["exp_avg"].dtype == torch.float32
        assert torch.equal(saved["exp_avg"], loaded["exp_avg"])
        assert torch.equal(saved["step"], loaded["step"])


def test_a_hyper_parameter_that_is_a_tensor(tmp_path: Path) -> None:
    model = llama()
    optimizer = torch.optim.AdamW(model.parameters(), lr=torch.tensor(0.125), foreach=False)
    path = save_checkpoint(tmp_path, step=1, model=model, tokenizer=None, optimizer=optimizer, state={})
    other = torch.optim.AdamW(model.parameters(), lr=torch.tensor(0.5), foreach=False)
    load_checkpoint(path, model=model, optimizer=other)
    assert torch.equal(other.param_groups[0]["lr"], torch.tensor(0.125))


def test_a_parameter_that_never_had_a_gradient(tmp_path: Path) -> None:
    training = Training(llama(tied=False))
    training.model.lm_head.weight.requires_grad_(False)
    training.step()
    other = Training(llama(tied=False))
    other.load(training.save(tmp_path))
    assert_same_weights(training.model, other.model)
    assert len(other.optimizer.state) == len(training.optimizer.state) == len(weights(other.model)) - 1


def test_random_generators_continue(tmp_path: Path) -> None:
    def draw() -> tuple:
        return random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn(), torch.rand(3).tolist()

    training = Training(llama())
    random.gauss(0, 1), np.random.randn()  # both keep a second value for the next call
    path = training.save(tmp_path)
    expected = draw()
    draw()
    load_checkpoint(path, model=training.model, optimizer=training.optimizer)
    assert draw() == expected
    load_checkpoint(path, model=training.model, restore_random=False)
    assert draw() != expected


# --- what is in a checkpoint -----------------------------------------------------------------------------------------


def make_tokenizer() -> PreTrainedTokenizerFast:
    from tokenizers import Tokenizer, models

    vocabulary = {f"t{i}": i for i in range(32)}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel(vocabulary, unk_token="t0")))


def test_the_directory_is_a_hugging_face_model_and_holds_no_pickle(tmp_path: Path) -> None:
    training = Training(llama())
    training.step()
    path = save_checkpoint(
        tmp_path, step=5, model=training.model, tokenizer=make_tokenizer(), optimizer=training.optimizer, state={}
    )
    assert path == tmp_path / "checkpoints" / "step_5"
    files = {file.name for file in path.iterdir()}
    assert {"config.json", "model.safetensors", "generation_config.json", "tokenizer.json", "state.json"} <= files
    assert {file.rsplit(".", 1)[1] for file in files} == {"json", "safetensors"}
    loaded = AutoModelForCausalLM.from_pretrained(path)
    assert loaded.dtype == torch.float32
    assert_same_weights(loaded, training.model)
    names = load_file(path / "optimizer.safetensors").keys()
    assert "model.layers.0.self_attn.q_proj.weight|exp_avg_sq" in names


def test_sharded_weights(tmp_path: Path) -> None:
    training = Training(llama())
    path = training.save(tmp_path)
    (path / "model.safetensors").unlink()
    training.model.save_pretrained(path, max_shard_size="4KB")
    contents = json.loads((path / "state.json").read_text())
    del contents["files"]["model.safetensors"]
    (path / "state.json").write_text(json.dumps(contents))
    assert len(list(path.glob("model-*.safetensors"))) > 2
    other = Training(llama())
    other.load(path)
    assert_same_weights(other.model, training.model)


def test_saving_a_step_again_replaces_it(tmp_path: Path) -> None:
    training = Training(llama())
    training.save(tmp_path)
    training.step()
    path = training.save(tmp_path)
    other = Training(llama())
    other.load(path)
    assert_same_weights(other.model, training.model)
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step_3"]


@pytest.mark.parametrize(
    ("keep_last", "left"), [(None, [1, 2, 3, 10]), (0, [1, 2, 3, 10]), (1, [10]), (2, [3, 10]), (9, [1, 2, 3, 10])]
)
def test_older_checkpoints_are_deleted_by_number_not_by_name(
    tmp_path: Path, keep_last: int | None, left: list[int]
) -> None:
    training = Training(llama())
    for step in (1, 2, 3, 10):
        training.save(tmp_path, step, keep_last=keep_last)
    found = sorted(int(path.name.split("_")[1]) for path in (tmp_path / "checkpoints").iterdir())
    assert found == left
    assert latest_checkpoint(tmp_path) == tmp_path / "checkpoints" / "step_10"


def test_a_later_damaged_checkpoint_does_not_push_out_the_one_just_written(tmp_path: Path) -> None:
    training = Training(llama())
    training.save(tmp_path, 9)
    (tmp_path / "checkpoints" / "step_9" / "state.json").write_text("")
    training.save(tmp_path, 4)
    path = training.save(tmp_path, 5, keep_last=1)
    with pytest.warns(UserWarning, match="step_9 is damaged"):
        assert latest_checkpoint(tmp_path) == path


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"rng": torch.zeros(1)}, r"cannot save state.rng: a Tensor would need pickle"),
        ({"a": [{"b": {1, 2}}]}, r"cannot save state.a\[0\].b: a set"),
        ({"milestones": {3: 1}}, r"state.milestones: its key 3 is not text"),
    ],
)
def test_what_json_cannot_hold_is_refused_before_anything_is_written(tmp_path: Path, state: dict, message: str) -> None:
    model = llama()
    with pytest.raises(ValueError, match=message):
        save_checkpoint(tmp_path, step=1, model=model, tokenizer=None, optimizer=adamw(model), state=state)
    assert list(tmp_path.iterdir()) == []


def test_numbers_come_back_exactly(tmp_path: Path) -> None:
    model, values = llama(), {"x": [0.1, 1e-300, float("inf"), -0.0, 2**70], "none": None, "yes": True, "text": "ü"}
    path = save_checkpoint(tmp_path, step=1, model=model, tokenizer=None, optimizer=adamw(model), state=values)
    assert load_checkpoint(path, model=model) == {**values, "step": 1}


# --- refusals --------------------------------------------------------------------------------------------------------


def adamw_without(name: str) -> Callable[[Any], Optimizer]:
    return lambda model: torch.optim.AdamW([p for n, p in model.named_parameters() if n != name], lr=1e-2)


@pytest.mark.parametrize(
    ("build", "optimizer", "message"),
    [
        (lambda: llama(hidden_size=32), adamw, r"model.embed_tokens.weight has shape \[32, 16\] there and \[32, 32\]"),
        (lambda: llama(num_hidden_layers=1), adamw, "parameters are not in this model, model.layers.1."),
        (lambda: llama(num_hidden_layers=3), adamw, r"lacks 9 of this model's parameters, model.layers.2."),
        (lambda: llama(tied=False), adamw, "lacks 1 of this model's parameters, lm_head.weight"),
        (lambda: llama().to(torch.bfloat16), adamw, "is torch.float32 there and torch.bfloat16 in this model"),
        (lora, adamw, "holds a full model, but this run trains a LoRA adapter"),
        (llama, lambda m: torch.optim.SGD(m.parameters()), "saved with optimizer AdamW, but this run uses SGD"),
        (llama, adamw_without("model.norm.weight"), "only there model.norm.weight; only here none"),
        (llama, two_groups, "the same parameters in other groups"),
        (llama, lambda m: adamw(llama()), "holds a parameter that the model does not name"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_is_touched(
    tmp_path: Path, build: Callable[[], Any], optimizer: Callable[[Any], Any], message: str
) -> None:
    saved = Training(llama())
    saved.step()
    path = saved.save(tmp_path)
    model = build()
    before = weights(model)
    with pytest.raises(ValueError, match=message) as caught:
        load_checkpoint(path, model=model, optimizer=optimizer(model))
    assert f"the checkpoint {path} does not fit this run" in str(caught.value)
    assert all(torch.equal(before[name], after) for name, after in weights(model).items())


def test_an_adapter_is_refused_by_a_full_model(tmp_path: Path) -> None:
    path = Training(lora()).save(tmp_path)
    with pytest.raises(ValueError, match="holds a LoRA adapter, but this run trains a full model"):
        load_checkpoint(path, model=llama())


# --- damage ----------------------------------------------------------------------------------------------------------


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: truncate(path / "model.safetensors"), r"model.safetensors has \d+ bytes instead of \d+"),
        (lambda path: (path / "optimizer.safetensors").unlink(), "optimizer.safetensors is missing"),
        (lambda path: (path / "state.json").unlink(), "state.json cannot be read"),
        (lambda path: truncate(path / "state.json"), "state.json cannot be read"),
        (lambda path: (path / "state.json").write_text("[]"), "state.json cannot be read"),
        (lambda path: (path / "state.json").write_text('{"format": 99}'), "it is of format 99"),
    ],
)
def test_a_damaged_checkpoint_is_passed_over_with_a_warning(
    tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    training = Training(llama())
    good, bad = training.save(tmp_path, 1), training.save(tmp_path, 2)
    damage(bad)
    with pytest.warns(UserWarning, match=f"step_2 is damaged and is passed over: {message}"):
        assert latest_checkpoint(tmp_path) == good
    with pytest.raises(ValueError, match=f"step_2 cannot be loaded: {message}"):
        load_checkpoint(bad, model=training.model)


def test_no_checkpoint_yet(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path) is None
    (tmp_path / "checkpoints" / ".step_1.tmp-5").mkdir(parents=True)
    (tmp_path / "checkpoints" / "notes").mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert latest_checkpoint(tmp_path) is None


# --- SIGKILL and full disks ------------------------------------------------------------------------------------------

# The child saves in a loop; every number of its model, optimizer and state says which step it belongs to.
KILLED = """
import os, random, signal, sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
from rl.checkpoint import latest_checkpoint, load_checkpoint, save_checkpoint
from rl.files import remove_leftovers
from tests.rl.test_checkpoint import adamw, llama

run = Path(sys.argv[1])
model = llama(hidden_size=64, intermediate_size=256)
optimizer = adamw(model)

def fill(value):
    for parameter in model.parameters():
        parameter.data.fill_(value)
        optimizer.state[parameter] = {
            "step": torch.tensor(float(value)),
            "exp_avg": torch.full_like(parameter, value),
            "exp_avg_sq": torch.full_like(parameter, value),
        }

def save_forever(step, report):
    while True:
        fill(step)
        save_checkpoint(
            run, step=step, model=model, tokenizer=None, optimizer=optimizer, state={"is": step}, keep_last=2
        )
        os.write(report, step.to_bytes(4, "big"))
        step += random.choice([0, 1])  # sometimes the same step again

def last_reported(reports, data):
    while chunk := os.read(reports, 4096):
        data += chunk
    return int.from_bytes(data[-4:], "big")

fill(0)
start = time.perf_counter()
save_checkpoint(run, step=0, model=model, tokenizer=None, optimizer=optimizer, state={"is": 0})
duration = time.perf_counter() - start

rng = random.Random(0)
done, torn = 0, 0
for kill in range(15):
    reports, report = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reports)
        try:
            save_forever(done + 1, report)
        finally:
            os._exit(1)
    os.close(report)
    first = os.read(reports, 4) if kill % 2 else b""  # every other child may finish a save before it is killed
    time.sleep(rng.uniform(0.0, duration))
    os.kill(child, signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    reported = last_reported(reports, first)
    os.close(reports)
    torn += any(path.name.startswith(".") for path in (run / "checkpoints").glob(".*"))
    remove_leftovers(run / "checkpoints")
    path = latest_checkpoint(run)
    fill(-1)
    state = load_checkpoint(path, model=model, optimizer=optimizer)
    step = state["step"]
    assert step >= max(reported, done), (step, reported, done)
    assert state["is"] == step and path.name == f"step_{step}"
    for parameter in model.parameters():
        assert (parameter == step).all()
        assert all((value == step).all() for value in optimizer.state[parameter].values())
    assert 1 <= len(list((run / "checkpoints").iterdir())) <= 3
    done = step
print(done, torn)
"""


@pytest.mark.slow
def test_sigkill_at_random_moments_leaves_the_newest_checkpoint_whole(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error::UserWarning", "-c", KILLED, str(tmp_path)]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=Path(__file__).parents[2])
    assert finished.returncode == 0, finished.stderr
    saved, torn = map(int, finished.stdout.split())
    assert saved >= 7
    assert torn >= 3  # most kills hit the middle of a save, or this test would show nothing


# A checkpoint takes about 90 KB. What is left on the disk shrinks from round to round, so that saving fails at the
# model, at the optimizer, at the state, ...
FULL_DISK = """
import sys
from pathlib import Path
from rl.checkpoint import latest_checkpoint, load_checkpoint
from rl.files import WriteError
from tests.rl.test_checkpoint import Training, assert_same_weights, llama

run = Path(sys.argv[1])
training, other = Training(llama()), Training(llama())
training.step()
good = training.save(run, 1)
for step in range(2, 30):
    (run / f"ballast_{step}").write_bytes(bytes(8192))
    try:
        good = training.save(run, step, keep_last=1)
    except WriteError as error:
        print(error)
    assert list((run / "checkpoints").iterdir()) == [good]
    assert latest_checkpoint(run) == good
other.load(good)
assert_same_weights(training.model, other.model)
"""


@pytest.mark.slow
def test_a_full_disk_in_mid_save_leaves_the_earlier_checkpoint(run_on_small_disk: RunOnSmallDisk) -> None:
    messages = run_on_small_disk(FULL_DISK, size="350k").splitlines()
    assert 5 < len(messages) < 28
    for message in messages:
        assert "No space left on device" in message
        assert "checkpoints/step_" in message
        assert "nothing was half-written" in message


@pytest.mark.parametrize("limit", [100, 10_000, 30_000])
def test_a_save_that_the_system_stops_leaves_the_earlier_checkpoint(tmp_path: Path, limit: int) -> None:
    """The same without a mount: no file may grow beyond `limit` bytes, whichever file that hits."""
    import resource

    training = Training(llama())
    training.step()
    good = training.save(tmp_path, 1)
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, old[1]))
    try:
        with pytest.raises(WriteError, match="File too large"):
            training.save(tmp_path, 2, keep_last=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert list((tmp_path / "checkpoints").iterdir()) == [good]
    training.load(good)
