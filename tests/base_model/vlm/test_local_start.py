"""A new resampler's queries look at their own part of the view, whatever the sizes; loading undoes nothing."""

import pytest
import torch
from transformers import SiglipVisionConfig

from base_model.vlm.local_start import start_resampler, start_tower
from base_model.vlm.resampler import Resampler, grid_positions
from base_model.vlm.vision import VisionTower, table_positions


def attention(resampler: Resampler, side: int) -> torch.Tensor:
    """[H, Q, side * side]: where each query looks when all patches are alike."""
    keys = grid_positions(side, side, resampler.query.shape[1], torch.device("cpu"))
    query_QD, key_ND, _ = resampler._project(resampler.ln_q(resampler.query), keys, keys)
    query, key = (resampler._split(x[None])[0] for x in (query_QD, key_ND))
    return (query @ key.transpose(1, 2) / query.shape[-1] ** 0.5).softmax(-1)


@pytest.mark.parametrize(
    ("queries", "width", "side"), [(16, 256, 8), (16, 128, 8), (64, 576, 32), (64, 1024, 32), (9, 96, 8)]
)
def test_queries_look_at_their_own_cell(queries: int, width: int, side: int) -> None:
    torch.manual_seed(0)
    resampler = Resampler(queries, width, 64)
    resampler.init_weights()
    assert start_resampler(resampler, side)
    with torch.no_grad():
        mass_HQN = attention(resampler, side)
    across = round(queries**0.5)
    rows, columns = torch.arange(side * side) // side, torch.arange(side * side) % side
    for query in range(queries):
        middle = [((at + 0.5) * side / across - 0.5) for at in (query // across, query % across)]
        near = ((rows - middle[0]).abs() <= side / across) & ((columns - middle[1]).abs() <= side / across)
        share = mass_HQN[:, query, near].sum(-1)
        assert (share > 1.4 * near.float().mean()).all(), (query, share, near.float().mean())


def test_a_number_of_queries_that_is_no_square_changes_nothing() -> None:
    resampler = Resampler(20, 64, 64)
    resampler.init_weights()
    before = {name: value.clone() for name, value in resampler.state_dict().items()}
    assert not start_resampler(resampler, 8)
    for name, value in resampler.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_positions_of_the_tower_are_nearest_to_their_neighbours() -> None:
    """The table's entry of a patch is closest to itself, then to the patches beside it, in a usual view."""
    config = SiglipVisionConfig(
        hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=1, image_size=224, patch_size=14
    )
    tower = VisionTower(config)
    start_tower(tower, 8)
    codes_NC = tower.embeddings.position_embedding.weight[table_positions(8, 8, tower.embeddings.side)]
    assert codes_NC.std() > 0.5
    likeness_NN = codes_NC @ codes_NC.T
    patch = 3 * 8 + 4
    nearest = likeness_NN[patch].topk(5).indices.tolist()
    assert nearest[0] == patch
    assert set(nearest[1:]) == {patch - 1, patch + 1, patch - 8, patch + 8}
    attention = tower.encoder.layers[0].self_attn
    assert torch.equal(attention.k_proj.weight, attention.q_proj.weight)
