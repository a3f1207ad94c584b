"""An engine whose answers are a hash of what it is asked, for tests of what happens around it; no vLLM is started.

As a script it labels questions slowly, until it is killed: `python -m tests.rl.fixed_engine CACHE QUESTIONS`.
"""

from __future__ import annotations

import hashlib
import math
import sys
import time
from pathlib import Path

from rl.claims import Claim, ClaimKind
from rl.disk_cache import DiskCache
from rl.labeler import Labeler, LabelRequest, Media
from tests.base_model.vlm.small import picture, shared


class FixedEngine:
    """Gives p = 0.5 ** (1 + hash) to each token; prompts of more than `longest` tokens are refused."""

    version = 0

    def __init__(self, *, longest=2000, pause_s=0.0, value=None):
        self.longest, self.pause_s, self.value = longest, pause_s, value
        self.prompts = []
        self.calls = 0

    def check_prompt(self, prompt, media=None):
        if len(prompt) > self.longest:
            raise ValueError(f"the prompt has {len(prompt)} tokens, more than {self.longest}")

    def next_logprobs(self, prompts, token_ids, on_progress=None, media=None, on_result=None):
        self.calls += 1
        answers = []
        for index, (prompt, tokens) in enumerate(zip(prompts, token_ids, strict=True)):
            time.sleep(self.pause_s)
            self.prompts.append((tuple(prompt), media[index]))
            seen = repr((tuple(prompt), media[index] and len(media[index].images))).encode()
            power = 1 + hashlib.sha256(seen).digest()[0] % 7
            answers.append([math.log(0.5**power / (1 + at)) if self.value is None else self.value
                            for at in range(len(tokens))])  # fmt: skip
            on_result(index, answers[-1])
        return answers


def claim(text, question=None):
    return Claim(text=text, question=question or f"Is it true that {text}?", kind=ClaimKind.OTHER)


def requests(count):
    """Questions about one picture, a second one, and none."""
    places = (Media(images=(picture(60, 50),)), Media(images=(picture(60, 50, 1),)), Media())
    return [LabelRequest(claim=claim(f"thing {n} is there"), media=places[n % 3]) for n in range(count)]


def labeler(engine, cache=None, identity="tiny", **options):
    return Labeler(engine, shared()[1], identity=identity, cache=cache, **options)


if __name__ == "__main__":
    with DiskCache(Path(sys.argv[1])) as kept:
        labeler(FixedEngine(pause_s=0.02), kept).label(requests(int(sys.argv[2])))
