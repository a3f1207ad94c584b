"""A recipe that writes its process id and sleeps, to be a stage of another one."""

import os
import time
from pathlib import Path

from pydantic import BaseModel

from recipes.cli import run_recipe


class SleeperConfig(BaseModel):
    """Where the process id goes."""

    out: Path


def main(config: SleeperConfig) -> None:
    """Write, then sleep."""
    config.out.write_text(str(os.getpid()))
    time.sleep(60)


if __name__ == "__main__":
    raise SystemExit(run_recipe(main, SleeperConfig))
