"""How many processes a run was launched in: what `torchrun` and `accelerate launch` say in the environment.

Free of torch, so that a command line can ask.
"""

import os


def launched_processes() -> int:
    """Processes of this launch; 1 without a launcher."""
    return _number("WORLD_SIZE", 1)


def launched_rank() -> int:
    """Number of this process in its launch, from 0; process 0 leads and is the one that speaks."""
    return _number("RANK", 0) if launched_processes() > 1 else 0


def refuse_launcher_settings() -> None:
    """Refuse settings of `accelerate launch` that would wrap the model in a way of its own.

    Raises:
        ValueError: They are there.
    """
    for name, what in (("ACCELERATE_USE_FSDP", "FSDP"), ("ACCELERATE_USE_DEEPSPEED", "DeepSpeed")):
        if os.environ.get(name, "false").lower() == "true":
            raise ValueError(
                f"accelerate launch was told to use {what}, which this trainer sets up by itself: launch plain "
                "processes (--multi_gpu, or torchrun) and write trainer: {parallel: {kind: fsdp}}"
            )


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, "")
    return int(text) if text.isdigit() else default
