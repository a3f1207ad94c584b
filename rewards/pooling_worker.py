"""The process that holds a reward model in vLLM's pooling runner: `python -m rewards.pooling_worker FD OPTIONS_JSON`.

vLLM changes threads, random state and process group of the process it runs in, so it gets one of its own. FD is one end
of a socket pair inherited from the parent. One line of JSON in, one out:

    [[token ids], ...]       {"scores": [float, ...]}, or {"error": text}, after which this process exits
    end of file              nothing: exits
"""

import json
import os
import socket
import sys
import traceback
from collections.abc import Sequence
from typing import Any


class PoolingModel:
    """A reward model in vLLM."""

    def __init__(self, options: dict[str, Any]) -> None:
        from vllm import LLM

        self._llm = LLM(runner="pooling", **options)

    def score(self, texts: Sequence[Sequence[int]]) -> list[float]:
        """Return the head's output for each text of token ids."""
        from vllm import PoolingParams

        prompts: list[Any] = [{"prompt_token_ids": list(text)} for text in texts]
        # With an activation vLLM would squeeze the score through a sigmoid, where good answers tie.
        params = PoolingParams(use_activation=False)
        outputs = self._llm.encode(prompts, pooling_params=params, pooling_task="classify", use_tqdm=False)
        return [float(output.outputs.data.flatten()[0]) for output in outputs]


def main(arguments: list[str]) -> int:
    """Answer the parent until it is done."""
    connection = socket.socket(fileno=int(arguments[0]))
    with connection, connection.makefile("rw", encoding="ascii") as lines:
        try:
            model = PoolingModel(json.loads(arguments[1]))
            for line in lines:
                _send(lines, {"scores": model.score(json.loads(line))})
        except (BrokenPipeError, ConnectionResetError):
            return 0
        except Exception as error:  # whatever vLLM raises, the parent is told
            traceback.print_exc()
            _send(lines, {"error": f"{type(error).__name__}: {error}"})
            return 1
    return 0


def _send(lines: Any, answer: dict[str, Any]) -> None:
    lines.write(json.dumps(answer) + "\n")
    lines.flush()


if __name__ == "__main__":
    os._exit(main(sys.argv[1:]))  # vLLM's exit handlers take seconds and have nothing to save
