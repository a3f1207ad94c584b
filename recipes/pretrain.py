"""Pre-trains a vision-language model in stages (MiniCPM-V 4.5, arXiv 2509.18154, section 3): first the resampler alone
learns to pass on what the tower sees, then the tower joins it, then everything trains.

    python -m recipes.pretrain --model.path models/tiny --run runs/pretrain
"""

from __future__ import annotations

from recipes.cli import CONFIGS, run_recipe
from recipes.stage_config import StagedConfig
from recipes.stages import run_stages

if __name__ == "__main__":
    raise SystemExit(run_recipe(run_stages, StagedConfig, doc=__doc__, default_config=CONFIGS / "pretrain.yaml"))
