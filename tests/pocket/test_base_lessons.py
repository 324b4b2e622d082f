"""What the base is asked beside the velocity, how it grows, and which moments of sampling it sees."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline_lib.errors import InputError
from pipeline_lib.pocket.base import BaseSettings, draw_sigma
from pipeline_lib.pocket.base_models import BLOCKS, TEXT_WIDTH, build_transformer, take_over
from pipeline_lib.pocket.base_network import TextToVideo
from pipeline_lib.pocket.base_places import PlaceHeads, subject_poses
from pipeline_lib.pocket.base_words import QUESTIONS, UNKNOWN, WordHeads, answers
from pipeline_lib.world.motion import named_motion
from pipeline_lib.world.sampling import SceneMix, sample_scene


def test_a_scene_answers_every_question_that_it_can():
    one, two = sample_scene(3, 0, SceneMix(two_share=0.0)), sample_scene(3, 0, SceneMix(two_share=1.0))
    assert len(answers(one, image=False)) == QUESTIONS
    assert [word != UNKNOWN for word in answers(one, image=False)] == [True] * 5 + [False] * 5 + [True] * 3
    assert UNKNOWN not in answers(two, image=False)
    # One frame shows no motion, of neither subject, and no camera move.
    assert answers(two, image=True).count(UNKNOWN) == 3


def test_other_scenes_have_other_answers():
    found = {tuple(answers(sample_scene(3, index), image=False)) for index in range(20)}
    assert len(found) > 15


def test_heads_learn_what_tokens_say_and_ignore_padding():
    torch.manual_seed(0)
    heads = WordHeads(8)
    embeddings = torch.randn(4, 6, 8)
    mask = torch.tensor([[1] * 6, [1] * 3 + [0] * 3, [1] * 2 + [0] * 4, [1] + [0] * 5])
    asked = torch.tensor([answers(sample_scene(3, index), image=False) for index in range(4)])
    before = heads(embeddings, mask, asked)
    assert torch.equal(before, heads(embeddings + 100.0 * (1 - mask[..., None]), mask, asked))
    optimizer = torch.optim.Adam(heads.parameters(), lr=0.1)
    for _ in range(60):
        optimizer.zero_grad()
        heads(embeddings, mask, asked).backward()
        optimizer.step()
    assert heads(embeddings, mask, asked) < 0.3 * before


def test_a_caption_that_says_nothing_costs_nothing():
    heads = WordHeads(8)
    loss = heads(torch.randn(2, 3, 8), torch.ones(2, 3), torch.full((2, QUESTIONS), UNKNOWN))
    loss.backward()
    assert loss == 0 and heads.heads.weight.grad is not None


def test_poses_are_the_tracks_in_numbers_of_about_one_spread():
    scenes = [sample_scene(3, index, SceneMix(two_share=0.5)) for index in range(200)]
    poses = np.stack([subject_poses(scene) for scene in scenes])
    assert poses.shape == (200, 13, 2, 6)
    alone = [len(scene.subjects) == 1 for scene in scenes]
    assert np.isnan(poses[alone, :, 1]).all() and not np.isnan(poses[~np.array(alone)]).any()
    spread = np.nanstd(poses, axis=(0, 1, 2))
    assert (spread > 0.5).all() and (spread < 1.5).all()
    left = replace(
        scenes[0],
        subjects=(replace(scenes[0].subjects[0], motion=named_motion("sliding left", np.random.default_rng(0))),),
    )
    assert (np.diff(subject_poses(left)[:, 0, 0]) < 0).all()


def test_places_are_read_from_whole_clips_and_poses_from_frames_too():
    torch.manual_seed(0)
    blocks = torch.nn.ModuleList(torch.nn.Identity() for _ in range(5))
    heads = PlaceHeads(blocks, 32, 13)
    poses = torch.from_numpy(np.stack([subject_poses(sample_scene(3, index)) for index in range(4)]))
    frame = torch.eye(13, 32).repeat_interleave(16, dim=0).expand(4, -1, -1)

    def run(tokens: torch.Tensor, asked: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        for block in blocks:
            block(tokens)
        return heads(asked)

    optimizer = torch.optim.Adam(heads.parameters(), lr=0.1)
    before = run(frame, poses)
    assert before[0].item() == pytest.approx(math.log(13), abs=0.3)
    for _ in range(80):
        optimizer.zero_grad()
        frames, where = run(frame, poses)
        (frames + where).backward()
        optimizer.step()
    # Tokens that tell their frames apart: both lessons are learned, the poses up to what differs from clip to clip.
    after = run(frame, poses)
    assert after[0] < 0.1 and after[1] < 0.8 * before[1]
    one_frame = run(torch.randn(4, 16, 32), poses[:, :1])
    assert one_frame[0] is None and one_frame[1] > 0


def test_a_pose_that_is_not_there_costs_nothing():
    blocks = torch.nn.ModuleList(torch.nn.Identity() for _ in range(5))
    heads = PlaceHeads(blocks, 8, 13)
    for block in blocks:
        block(torch.randn(2, 16, 8))
    _, loss = heads(torch.full((2, 1, 2, 6), math.nan))
    loss.backward()
    assert loss == 0 and not heads.pose_head.weight.grad.isnan().any()


def test_each_lesson_reaches_the_blocks_before_it_and_no_others():
    torch.manual_seed(0)
    model = TextToVideo(300)
    poses = torch.from_numpy(subject_poses(sample_scene(3, 0)))[None]
    tokens, mask = torch.randint(2, 300, (1, 9)), torch.ones(1, 9, dtype=torch.long)

    def taught(lesson: int) -> list[bool]:
        model.zero_grad()
        model(torch.randn(1, 16, 13, 8, 8), torch.tensor([0.9]), model.embed(tokens, mask), mask)
        model.places(poses)[lesson].backward()
        gradients = [block.ffn.net[2].weight.grad for block in model.transformer.blocks]
        return [gradient is not None and bool(gradient.abs().sum() > 0) for gradient in gradients]

    assert taught(0) == [True] * 2 + [False] * (BLOCKS - 2)
    assert taught(1) == [True] * 5 + [False] * (BLOCKS - 5)


def test_a_shallower_transformer_takes_no_deeper_one_over():
    with pytest.raises(InputError, match="deeper"):
        take_over(build_transformer(2), build_transformer(3))


@torch.no_grad()
def test_a_deeper_transformer_starts_as_the_shallow_one():
    torch.manual_seed(0)
    shallow, deep = build_transformer(5), build_transformer(8)
    take_over(deep, shallow)
    inputs = (torch.randn(1, 16, 2, 8, 8), torch.tensor([400.0]), torch.randn(1, 9, TEXT_WIDTH))
    assert torch.equal(deep(*inputs, return_dict=False)[0], shallow(*inputs, return_dict=False)[0])
    same = build_transformer(5)
    take_over(same, shallow)
    assert all(torch.equal(value, shallow.state_dict()[name]) for name, value in same.state_dict().items())


def test_early_moments_get_their_share():
    settings = BaseSettings(early_share=0.25, early_sigma=0.85)
    source = torch.Generator().manual_seed(0)
    sigma = draw_sigma(source, 400, settings)
    assert sigma.shape == (400,) and sigma.min() > 0 and sigma.max() <= 1
    assert sigma[:100].min() > 0.85 and sigma[:100].mean().item() == pytest.approx(0.925, abs=0.01)
    assert sigma[100:].median().item() == pytest.approx(0.75, abs=0.02)
    assert draw_sigma(source, 400, BaseSettings(early_share=0.0)).median().item() == pytest.approx(0.75, abs=0.02)


def test_padding_is_watched_until_it_is_not():
    torch.manual_seed(0)
    model = TextToVideo(300)
    watched = model.watch_padding()
    tokens, mask = torch.randint(2, 300, (2, 9)), torch.tensor([[1] * 9, [1] * 4 + [0] * 5])

    def run() -> None:
        model(torch.randn(2, 16, 1, 8, 8), torch.tensor([0.3, 0.9]), model.embed(tokens, mask), mask)

    run()
    # A fresh network attends to all rows alike: of 512, 9 and 4 are real.
    even = (math.log(512 / 9) + math.log(512 / 4)) / 2
    assert len(watched) == BLOCKS
    assert torch.stack(watched).mean().item() == pytest.approx(even, abs=0.5)
    torch.stack(watched).mean().backward()
    assert model.transformer.blocks[0].attn2.to_q.weight.grad.abs().sum() > 0
    watched.clear()
    model.ignore_padding()
    run()
    assert watched == []
