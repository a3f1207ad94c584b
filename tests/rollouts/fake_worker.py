"""A worker process without vLLM, which is up in a tenth of a second: `python -m tests.rollouts.fake_worker FD CONFIG`.

It speaks the protocol of `rollouts.worker`. The tokens of a response depend on its seed and on the bytes of the
weights, so a response shows which weights it was made with. Every running response gets a token in a millisecond.
"""

import json
import random
import struct
import subprocess
import sys
import time
import zlib
from multiprocessing.connection import Connection
from types import SimpleNamespace

import rollouts.process
from rollouts.ray_actor import VLLMActor
from rollouts.wire import WireResult
from rollouts.worker import _end, _end_with_parent

STEP_S = 0.001


def install(patch=setattr):
    """Makes `rollouts.process` start this module instead of vLLM's; `patch` is `monkeypatch.setattr` or `setattr`."""

    def popen(command, **options):
        return subprocess.Popen([word.replace("rollouts.worker", __name__) for word in command], **options)

    shim = SimpleNamespace(Popen=popen, DEVNULL=subprocess.DEVNULL, STDOUT=subprocess.STDOUT)
    patch(rollouts.process, "subprocess", shim)


def bare_checkpoint(folder):
    """A folder that an engine takes for a checkpoint: config.json and two tensors."""
    header = {
        name: {"dtype": "F32", "shape": [size], "data_offsets": [4 * start, 4 * (start + size)]}
        for name, start, size in (("first", 0, 1000), ("second", 1000, 24))
    }
    text = json.dumps(header).encode()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(4096))
    return folder


class Spelling:
    """A tokenizer that spells the numbers of the tokens."""

    eos_token_id = 2
    all_special_tokens = ()

    def decode(self, ids, **_):
        return " ".join(map(str, ids))


class FakeActor(VLLMActor):
    """The Ray actor with a fake worker."""

    def __init__(self, *arguments):
        install()
        super().__init__(*arguments)


def expected_ids(seed, fingerprint, count):
    """Tokens of a response."""
    draw = random.Random(f"{seed} {fingerprint}")
    return [draw.randrange(3, 380) for _ in range(count)]


def serve(connection):
    time.sleep(0.05)  # loads the model
    connection.send(("ready",))
    fingerprint = 0
    while True:
        name, *arguments = connection.recv()
        answer = None
        if name == "generate":
            answer = generate(connection, *arguments, fingerprint=fingerprint)
        elif name == "score":
            answer = [[-float(sum(ids) + fingerprint % 7) for _ in ids[first:]] for ids, first, *_ in arguments[0]]
        elif name == "choose":
            for index, choice in enumerate(arguments[0]):
                time.sleep(STEP_S)
                values = [-float(sum(choice.prompt_ids) + token + fingerprint % 7) for token in choice.token_ids]
                connection.send(("part", index, values))
        elif name == "load":
            with open(arguments[0], "rb") as file:
                fingerprint = zlib.crc32(file.read())
            time.sleep(0.05)  # copies it
        elif name == "close":
            return
        connection.send(("result", answer))


def generate(connection, requests, stream=False, *, fingerprint):
    results = [None] * len(requests)
    if any(request.seed == 666 for request in requests):
        raise SystemExit(3)  # a request that no worker survives
    if any(request.seed == 667 for request in requests):
        raise ValueError("this request cannot be answered")
    if any(request.seed == 668 for request in requests):
        raise MemoryError("out of memory: tried to allocate 2 GiB")
    for step in range(1, max(request.max_tokens for request in requests) + 1):
        time.sleep(STEP_S)
        if step % 10 == 1:
            connection.send(("progress", sum(request.max_tokens < step for request in requests), len(requests)))
        for index, request in enumerate(requests):
            if request.max_tokens == step:
                ids = expected_ids(request.seed, fingerprint, step)
                results[index] = WireResult(ids, [-0.5] * step, False, 0)
                if stream:
                    connection.send(("part", index, results[index]))
    return None if stream else results


if __name__ == "__main__":
    channel = Connection(int(sys.argv[1]))
    json.loads(sys.argv[2])
    _end_with_parent(channel)
    try:
        serve(channel)
    except (BrokenPipeError, ConnectionResetError, EOFError):
        _end()
    except Exception as error:
        channel.send(("error", f"{type(error).__name__}: {error}"))
