"""Tandem against another library, step by step in one run: `python -m recipes.benchmark --peer trl`.

    parent (no torch): configuration, turns, sums, table, JSON
        |-- recipes.benchmark.child tandem   rl.trainer.Trainer, its vLLM in a process of its own
        |-- recipes.benchmark.child trl      TRL's GRPOTrainer, vLLM in the same process (colocate)
        `-- recipes.benchmark.child verl     verl's synchronous trainer, its workers and vLLM server on a Ray of its own

Two children, Tandem and the peer, train the same model on the same prompts with the same number of forced response
tokens. The parent lets one of them do one step, then the other; whoever waits blocks on a socket and uses no CPU (but
for verl's Ray, which uses a little).
"""
