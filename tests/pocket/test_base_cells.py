"""What the base is asked about the cells of its latents."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline_lib.pocket.base_cells import CellHeads, on_bodies
from pipeline_lib.pocket.base_models import BLOCKS
from pipeline_lib.pocket.base_network import TextToVideo
from pipeline_lib.pocket.base_places import in_pixels, subject_poses
from pipeline_lib.pocket.base_words import QUESTIONS, UNKNOWN, answers
from pipeline_lib.pocket.judge.crops import to_pixels
from pipeline_lib.pocket.judge.truth_table import poses
from pipeline_lib.world.sampling import SceneMix, sample_scene

PAIR = sample_scene(3, 0, SceneMix(two_share=1.0))


def asked(*scenes: object) -> Tensor:
    return torch.from_numpy(np.stack([subject_poses(scene) for scene in scenes]))  # type: ignore[arg-type]


def test_poses_come_back_in_pixels():
    told = torch.stack(in_pixels(asked(PAIR)[0]), dim=-1)
    truth = poses(PAIR)
    truth[..., 2] = np.exp(truth[..., 2])
    truth[..., 3] = (truth[..., 3] + np.pi) % (2 * np.pi) - np.pi
    np.testing.assert_allclose(told.numpy(), truth, atol=1e-4)


def test_a_place_on_the_body_leads_back_to_its_cell():
    scene = sample_scene(3, 1, SceneMix(two_share=0.0))
    bodies = on_bodies(asked(scene), 8)
    assert bodies.shape == (1, 13, 2, 8, 8, 2) and bodies[:, :, 1].isnan().all()
    pose = torch.from_numpy(poses(scene)[:, 0])
    across, down = to_pixels(pose, bodies[0, :, 0, ..., 0], bodies[0, :, 0, ..., 1])
    centres = (torch.arange(8) + 0.5) * 8.0
    torch.testing.assert_close(across, centres.expand(13, 8, 8), atol=1e-3, rtol=0.0)
    torch.testing.assert_close(down, centres[:, None].expand(13, 8, 8), atol=1e-3, rtol=0.0)


def heads_that_see(hidden: Tensor) -> CellHeads:
    blocks = torch.nn.ModuleList(torch.nn.Identity() for _ in range(4))
    heads = CellHeads(blocks, hidden.shape[-1])
    for block in blocks:
        block(hidden)
    return heads


def patches(cells: Tensor) -> Tensor:
    """Tokens as Wan's patch embedding orders them: one channel for each of a patch's four cells."""
    kernel = torch.eye(4).view(4, 1, 1, 2, 2)
    return torch.nn.functional.conv3d(cells, kernel, stride=(1, 2, 2)).flatten(2).transpose(1, 2)


def test_occupancy_is_asked_in_the_order_of_the_patches():
    occupancy = torch.rand(1, 1, 13, 8, 8).round()
    hidden = patches(occupancy) * 2.0 - 1.0
    heads = heads_that_see(hidden)
    nobody, nothing = torch.full((1, 13, 2, 6), torch.nan), torch.full((1, QUESTIONS), UNKNOWN)
    with torch.no_grad():
        heads.place_head.weight.zero_()
        heads.place_head.bias.zero_()
        for cell in range(4):
            heads.place_head.weight[4 * cell, cell] = 50.0
        right, words = heads(nobody, occupancy, nothing)
        wrong, _ = _again(heads, hidden)(nobody, 1.0 - occupancy, nothing)
    assert right < 1e-6 and wrong > 10.0 and words == 0


def _again(heads: CellHeads, hidden: Tensor) -> CellHeads:
    heads._keep(heads, None, hidden)
    return heads


@pytest.mark.parametrize("scene", [PAIR, sample_scene(3, 1, SceneMix(two_share=0.0))], ids=["pair", "one"])
def test_tokens_that_tell_their_cells_apart_learn_the_lesson(scene: object):
    torch.manual_seed(0)
    occupancy = torch.rand(1, 1, 13, 8, 8)
    hidden = torch.eye(208)[None]
    heads = heads_that_see(hidden)
    words = torch.tensor([answers(scene, image=False)])  # type: ignore[arg-type]
    optimizer = torch.optim.Adam(heads.parameters(), lr=0.1)
    losses = []
    for _ in range(120):
        optimizer.zero_grad()
        places, names = _again(heads, hidden)(asked(scene), occupancy, words)
        (places + names).backward()
        optimizer.step()
        losses.append((places.item(), names.item()))
    # What is left of the places is the entropy of the occupancy itself, .5 on even shares.
    assert losses[-1][0] < 0.6 and losses[0][0] > 1.0
    assert losses[-1][1] < 0.05 and losses[0][1] > 1.5


def test_the_lesson_reaches_the_blocks_before_it_and_no_others():
    torch.manual_seed(0)
    model = TextToVideo(300)
    tokens, mask = torch.randint(2, 300, (1, 9)), torch.ones(1, 9, dtype=torch.long)
    model(torch.randn(1, 16, 13, 8, 8), torch.tensor([0.9]), model.embed(tokens, mask), mask)
    words = torch.tensor([answers(PAIR, image=False)])
    sum(model.cells(asked(PAIR), torch.rand(1, 1, 13, 8, 8), words)).backward()
    gradients = [block.ffn.net[2].weight.grad for block in model.transformer.blocks]
    taught = [gradient is not None and bool(gradient.abs().sum() > 0) for gradient in gradients]
    assert taught == [True] * 4 + [False] * (BLOCKS - 4)
