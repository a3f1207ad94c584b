"""verl's trainer process: a Ray actor on the machine that the run was started on."""

from typing import Any


class TaskRunner:
    """What verl's own task runner does, with `TandemTrainer`."""

    def run(self, config: Any) -> None:
        """Train to the end. Raises what stops the run."""
        import transfer_queue as tq
        from omegaconf import OmegaConf
        from verl.trainer.ppo.v1 import AgentLoopManagerTQ

        from recipes.on_verl.trainer import TandemTrainer

        config.transfer_queue.enable = True
        OmegaConf.resolve(config)
        tq.init(config.transfer_queue)
        trainer = None
        try:
            trainer = TandemTrainer(config=config)
            trainer.init()
            loops = AgentLoopManagerTQ.create(
                config=config,
                llm_client=trainer.get_llm_client(),
                teacher_client=trainer.get_teacher_client(),
                reward_loop_worker_handles=trainer.get_reward_handles(),
            )
            trainer.fit(loops)
        finally:
            if trainer is not None:
                trainer.session.close()
            tq.close()
