"""Fine-tunes a pre-trained vision-language model in two stages (MiniCPM-V 4.5, arXiv 2509.18154, section 3): general
instructions with a tenth of plain text; then reasoning in both modes, with videos read in packages of frames (the
upgrade from 2D to 3D, which needs no new weights).

    python -m recipes.vlm_sft --model.path runs/pretrain --run runs/vlm_sft

For text alone, from rows with worked solutions, see recipes.sft.
"""

from __future__ import annotations

from recipes.cli import CONFIGS, run_recipe
from recipes.stage_config import StagedConfig
from recipes.stages import run_stages

if __name__ == "__main__":
    raise SystemExit(run_recipe(run_stages, StagedConfig, doc=__doc__, default_config=CONFIGS / "vlm_sft.yaml"))
