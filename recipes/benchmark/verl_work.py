"""What verl's own processes are given: prompts as ids, and an agent loop whose responses run to their budget.

verl imports this module by name, in its dataset and in its agent-loop workers.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from uuid import uuid4

from torch.utils.data import Dataset
from verl.experimental.agent_loop.agent_loop import AgentLoopBase, AgentLoopMetrics, AgentLoopOutput
from verl.utils.profiler import simple_timer

from recipes.benchmark.workload import even_share


class Prompts(Dataset):
    """Prompts in order, from a JSON file of lists of token ids."""

    def __init__(
        self, data_files: Any, tokenizer: Any, config: Any, processor: Any = None, max_samples: int = -1
    ) -> None:
        """Args:
        data_files: the file.
        tokenizer, config, processor, max_samples: verl's, not used.
        """
        self._prompts: list[list[int]] = json.loads(Path(data_files).read_text())
        self.drawn: list[list[int]] = []
        """Prompts that verl has asked for since the list was cleared."""

    def __len__(self) -> int:
        return len(self._prompts)

    def __getitem__(self, index: int) -> dict[str, Any]:
        ids = self._prompts[index]
        self.drawn.append(ids)
        return {"index": index, "raw_prompt": ids}  # the name is verl's


class ForcedLengths(AgentLoopBase):
    """One response per call, and its reward at once: verl's own reward worker would decode and encode it again."""

    async def run(self, sampling_params: dict[str, Any], **kwargs: Any) -> AgentLoopOutput:
        """Generate a response; verl's settings `response_length` and `ignore_eos` give it its length."""
        prompt = [int(token) for token in kwargs["raw_prompt"]]
        timing: dict[str, float] = {}
        with simple_timer("generate_sequences", timing):
            output = await self.server_manager.generate(
                request_id=uuid4().hex, prompt_ids=prompt, sampling_params=sampling_params
            )
        return AgentLoopOutput(
            prompt_ids=prompt,
            response_ids=list(output.token_ids),
            response_mask=[1] * len(output.token_ids),
            response_logprobs=list(output.log_probs),
            reward_score=even_share(response_ids=output.token_ids),
            num_turns=2,
            metrics=AgentLoopMetrics(**timing),
            extra_fields=output.extra_fields,
        )
