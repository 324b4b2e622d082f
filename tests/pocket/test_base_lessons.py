"""What the base's text encoder is asked beside the velocity, and training on some frames of a clip."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from pipeline_lib.pocket.base import TextToVideo
from pipeline_lib.pocket.base_words import QUESTIONS, UNKNOWN, WordHeads, answers
from pipeline_lib.pocket.moments import draw_moments
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


def test_moments_are_evenly_spaced_and_reach_the_whole_clip():
    drawn = [draw_moments(np.random.default_rng(seed), 13, 5) for seed in range(200)]
    strides = {tuple(np.diff(moments)) for moments in drawn}
    assert strides == {(1,) * 4, (2,) * 4, (3,) * 4}
    assert min(min(moments) for moments in drawn) == 0 and max(max(moments) for moments in drawn) == 12
    assert draw_moments(np.random.default_rng(0), 13, 13) == tuple(range(13))


@torch.no_grad()
def test_frames_keep_their_place_in_time():
    torch.manual_seed(0)
    model = TextToVideo(300).eval()
    rope = model.transformer.rope
    whole = rope(torch.zeros(1, 16, 13, 8, 8))
    model.moments.current = (2, 5, 8)
    some = rope(torch.zeros(1, 16, 3, 8, 8))
    model.moments.current = None
    for every, chosen in zip(whole, some, strict=True):
        frames = every.unflatten(1, (13, 16))
        assert torch.equal(chosen, frames[:, [2, 5, 8]].flatten(1, 2))
    assert torch.equal(rope(torch.zeros(1, 16, 3, 8, 8))[0], whole[0][:, : 3 * 16])


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
    assert len(watched) == 6
    assert torch.stack(watched).mean().item() == pytest.approx(even, abs=0.5)
    torch.stack(watched).mean().backward()
    assert model.transformer.blocks[0].attn2.to_q.weight.grad.abs().sum() > 0
    watched.clear()
    model.ignore_padding()
    run()
    assert watched == []
