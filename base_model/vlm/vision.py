"""Vision tower: a SigLIP-type transformer for views of any size.

Legend: P side of a patch in pixels, N patches of a view, C tower width, V views of one size.

Views of the same size are computed together and views of different sizes apart, so no padding and no attention mask
ever exists: a view's features do not depend on what else is in the batch.
"""

import copy
from collections.abc import Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import SiglipVisionConfig
from transformers import initialization as init
from transformers.models.siglip.modeling_siglip import SiglipAttention, SiglipEncoder, SiglipMLP

from base_model.vlm import vision_attention

Grid = tuple[int, int]
"""(rows, columns) of patches."""


class VisionEmbeddings(nn.Module):
    """Patch projection plus a learned position table that is looked up for grids of any size.

    The table has ``image_size // patch_size`` rows and columns; a patch reads the entry at its relative place in the
    view (NaViT's fractional coordinates, arXiv 2307.06304, section 2.1, as in MiniCPM-V).
    """

    def __init__(self, config: SiglipVisionConfig) -> None:
        super().__init__()
        self.side = config.image_size // config.patch_size
        self.patch_embedding = nn.Conv2d(3, config.hidden_size, config.patch_size, config.patch_size)
        self.position_embedding = nn.Embedding(self.side**2, config.hidden_size)

    def forward(self, pixels: Tensor, grid: Grid) -> Tensor:
        """Patches [V, 3, P, N * P] side by side -> embeddings [V, N, C]."""
        weight = self.patch_embedding.weight
        views, channels, patch, _ = pixels.shape
        patches = pixels.to(weight.dtype).view(views, channels, patch, -1, patch)
        patches = patches.permute(0, 3, 1, 2, 4).flatten(2)  # as the weight lies: channel, row, column
        positions_N = table_positions(*grid, self.side).to(weight.device)
        return F.linear(patches, weight.flatten(1), self.patch_embedding.bias) + self.position_embedding(positions_N)


class VisionTower(nn.Module):
    """Embeddings, transformer layers and a final norm; parameters are named as in the official checkpoint."""

    def __init__(self, config: SiglipVisionConfig, *, drop_last_layer: bool = False, batch_size: int = 16) -> None:
        super().__init__()
        # A copy: the attention chosen for the language model (such as packed) must not reach this part.
        config = copy.deepcopy(config)
        config._attn_implementation = vision_attention.NAME
        config.num_hidden_layers -= int(drop_last_layer)
        self.batch_size = batch_size
        self.embeddings = VisionEmbeddings(config)
        self.encoder = SiglipEncoder(config)
        self.post_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, views: Sequence[Tensor], grids: Sequence[Grid]) -> list[Tensor]:
        """Features [N, C] of each view, in the order given.

        Args:
            views: patches [3, P, N * P] side by side, of each view.
            grids: (rows, columns) of patches of each view.
        """
        features: dict[int, Tensor] = {}
        for members in batches(grids, self.batch_size):
            hidden = self.embeddings(torch.stack([views[i] for i in members]), grids[members[0]])
            hidden = self.post_layernorm(self.encoder(inputs_embeds=hidden).last_hidden_state)
            features.update(zip(members, hidden.unbind(), strict=True))
        return [features[i] for i in range(len(views))]

    def init_weights(self) -> None:
        """SigLIP's initialisation; weights that were loaded are left alone."""
        embeddings = self.embeddings
        init.lecun_normal_(embeddings.patch_embedding.weight)
        init.zeros_(embeddings.patch_embedding.bias)
        init.normal_(embeddings.position_embedding.weight, std=embeddings.position_embedding.embedding_dim**-0.5)
        for module in self.modules():
            if isinstance(module, SiglipAttention | SiglipMLP):
                for layer in module.children():
                    if isinstance(layer, nn.Linear):
                        init.xavier_uniform_(layer.weight)
                        init.zeros_(layer.bias)


def batches(kinds: Sequence[object], most: int) -> list[list[int]]:
    """Indices of equal items together, at most ``most`` at a time."""
    by_kind: dict[object, list[int]] = {}
    for index, kind in enumerate(kinds):
        by_kind.setdefault(kind, []).append(index)
    return [members[at : at + most] for members in by_kind.values() for at in range(0, len(members), most)]


@lru_cache(maxsize=256)
def table_positions(rows: int, columns: int, side: int) -> Tensor:
    """Entry [rows * columns] of a side x side table that each patch reads, row-major: floor(place * side) each way.

    In whole numbers, as vLLM's tower also comes out. The released code gets there in floating point, and reads the
    entry before where a place falls on a boundary and its rounding (which varies between machines) says so.
    """
    with torch.inference_mode(False):  # what is kept must also serve a later training step
        down, across = (torch.arange(count, device="cpu") * side // count for count in (rows, columns))
        return (down[:, None] * side + across).flatten()
