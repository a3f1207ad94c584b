"""One response, asked of verl's rollout servers as Tandem wants it: its own prompt, budget and seed."""

from typing import Any
from uuid import uuid4

from verl.experimental.agent_loop.agent_loop import AgentLoopBase, AgentLoopMetrics, AgentLoopOutput
from verl.utils.profiler import simple_timer


class TandemAgentLoop(AgentLoopBase):
    """A single turn whose prompt has been made already; rewards are given later, to whole groups."""

    async def run(self, sampling_params: dict[str, Any], **kwargs: Any) -> AgentLoopOutput:
        """Generate response number `session_id` of the prompt in `asked` (see `session.Session.ask`)."""
        asked = kwargs["asked"]
        params = {
            **sampling_params,
            "max_tokens": asked["max_tokens"],
            "seed": asked["seeds"][int(kwargs["session_id"])],
            "stop_token_ids": asked["stop_token_ids"],
        }
        timing: dict[str, float] = {}
        with simple_timer("generate_sequences", timing):
            output = await self.server_manager.generate(
                request_id=uuid4().hex, prompt_ids=list(asked["prompt_ids"]), sampling_params=params
            )
        return AgentLoopOutput(
            prompt_ids=list(asked["prompt_ids"]),
            response_ids=list(output.token_ids),
            response_mask=[1] * len(output.token_ids),
            response_logprobs=list(output.log_probs),
            reward_score=0.0,  # a place for the reward, which keeps verl from scoring the response alone
            num_turns=2,
            metrics=AgentLoopMetrics(**timing),
            extra_fields=output.extra_fields,
        )
