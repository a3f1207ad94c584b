"""The hybrid GRPO recipe on verl's trainer, on a Ray cluster.

    translate: the recipe's config -> verl's own config          launch: starts Ray and verl, watches, evaluates
    task_runner -> trainer.TandemTrainer -> sampler.TandemSampler -> session.Session
                      prompts, modes             groups, rewards       everything Tandem knows of the run

verl gives the processes: FSDP2 workers, vLLM servers, weight sync, checkpoints of the shards. What is asked, how it is
scored and what is written down is this library's own code, in verl's trainer process: the same `Environment`, rewards,
filter, ledger and records as in `rl.trainer`.
"""
