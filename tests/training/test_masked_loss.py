"""The masked loss: its formula, what is left out, who uses a full mask, and that it is the same in parts."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from pipeline_lib.errors import InputError
from pipeline_lib.flow_matching import sigma_quantiles
from pipeline_lib.masks.track import MaskTrack
from pipeline_lib.methods.baselines.lora import PlainLora
from pipeline_lib.methods.method import StageInputs
from pipeline_lib.methods.set_and_sequence.method import SetAndSequence
from pipeline_lib.methods.settings import settings_from
from pipeline_lib.models.load import load_base
from pipeline_lib.seeding import generator
from pipeline_lib.training.batch import micro_batches
from pipeline_lib.training.data import TrainingData
from pipeline_lib.training.encode import EncodingSettings, choose_frames, encode_training_data, window_starts
from pipeline_lib.training.stage import mean_error
from pipeline_lib.training.text import TokenDropSettings, with_learned
from tests.training.conftest import CAPTION, clip_of, moving_square

SETTINGS = EncodingSettings(num_frames=4, drop=TokenDropSettings(probability=0, variants=1), subject="zwx dog")


def square_masks(num_frames: int, empty: tuple[int, ...] = ()) -> MaskTrack:
    masks = np.zeros((num_frames, 32, 32), np.float32)
    for index in range(num_frames):
        if index not in empty:
            masks[index, 8:20, 2 * index : 2 * index + 10] = 1
    return MaskTrack(masks)


def encoded(base, masks, num_frames=9, **changes):
    settings = dataclasses.replace(SETTINGS, **changes)
    return encode_training_data(base, [clip_of(moving_square(num_frames))], [CAPTION], settings, masks)


@pytest.fixture(scope="module")
def masked(tiny_folder):
    return encoded(load_base(str(tiny_folder)), [square_masks(9, empty=(0, 4))])


@pytest.fixture(scope="module")
def plain(tiny_folder):
    return encoded(load_base(str(tiny_folder)), None)


def stage_of(base, data, *, prior=None, micro_batch=64, name="lora", **changes):
    method = PlainLora() if name == "lora" else SetAndSequence()
    small = {"rank": 2, "batch": 6, "prior_weight": 0.0 if prior is None else 1.0}
    spec = method.plan(settings_from(method, "portable", {**small, **changes}), has_clips=True)[0]
    return method.build(spec, base, StageInputs(data=data, prior=prior, previous=None, seed=5, micro_batch=micro_batch))


def test_the_error_is_the_subjects_own_by_hand():
    draw = torch.Generator().manual_seed(0)
    squared, mask = torch.rand(2, 3, 2, 4, 4, generator=draw), torch.rand(2, 1, 2, 4, 4, generator=draw)
    for sample in range(2):
        wanted = sum(
            float(mask[sample, 0, t, y, x]) * float(squared[sample, c, t, y, x])
            for c in range(3)
            for t in range(2)
            for y in range(4)
            for x in range(4)
        ) / (3 * float(mask[sample].sum()))
        assert float(mean_error(squared, mask)[sample]) == pytest.approx(wanted, rel=1e-5)


def test_a_mask_of_ones_is_the_plain_mean():
    squared = torch.rand(3, 16, 2, 4, 4, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(
        mean_error(squared, torch.ones(3, 1, 2, 4, 4)), mean_error(squared, None), rtol=1e-6, atol=0
    )


def test_masks_are_soft_in_space_and_the_largest_over_time(masked):
    track = square_masks(9, empty=(0, 4))
    assert masked.frames.mask.shape == (4, 1, 1, 4, 4)
    assert masked.windows.mask.shape == (5, 1, 2, 4, 4)
    seen = track.masks[1:6]  # the second window: frame 4 is empty
    first = seen[0].reshape(4, 8, 4, 8).mean((1, 3))
    rest = seen[1:].reshape(4, 4, 8, 4, 8).mean((2, 4)).max(0)
    np.testing.assert_allclose(masked.windows.mask[1, 0].numpy(), np.stack([first, rest]), atol=1e-6)
    assert 0 < float(masked.windows.mask[0, 0, 1].max()) <= 1
    assert not bool(masked.windows.mask[0, 0, 0].any()), "frame 0 has no subject"


def test_empty_frames_are_told_and_left_out_and_the_counts_stay(masked, plain):
    assert masked.empty_frames == ((0, 0), (0, 4))
    assert plain.empty_frames == ()
    assert len(masked.frames) == len(plain.frames) == 4
    assert len(masked.windows) == len(plain.windows) == 5
    assert bool(masked.frames.mask.flatten(1).any(1).all())
    assert bool(masked.held_out_frames.mask.flatten(1).any(1).all())
    used, held_out = choose_frames([9], 4, {(0, 0), (0, 4)})
    assert not {(0, 0), (0, 4)} & {*used, *held_out}
    assert choose_frames([9], 0, {(0, 0)})[0] == [(0, frame) for frame in range(1, 9)]


def test_a_window_without_the_subject_is_left_out():
    assert window_starts(12, 5, empty=range(7)) == [3, 4, 5, 6, 7]
    assert window_starts(100, 5, empty=range(90)) == list(range(86, 96))
    assert window_starts(9, 5, empty=range(9)) == []


def test_specks_in_an_empty_frame_do_not_count(base):
    track = square_masks(9, empty=(2,))
    track.masks[2, 31, 31] = 0.5  # under a thousandth of the frame
    data = encoded(base, [track])
    clean = encoded(base, [square_masks(9, empty=(2,))])
    assert data.empty_frames == ((0, 2),)
    assert torch.equal(data.windows.mask, clean.windows.mask)


def test_masks_that_do_not_fit_or_show_nothing_are_refused(base):
    with pytest.raises(InputError, match="frames and size"):
        encoded(base, [square_masks(8)])
    with pytest.raises(InputError, match="empty in every frame"):
        encoded(base, [square_masks(9, empty=tuple(range(9)))])


def test_masks_survive_their_files_and_are_absent_without(masked, plain, tmp_path):
    for name, data in (("masked", masked), ("plain", plain)):
        (tmp_path / name).mkdir()
        data.save(tmp_path / name)
    again = TrainingData.load(tmp_path / "masked")
    assert again.masked
    assert again.empty_frames == masked.empty_frames
    for part in ("frames", "held_out_frames", "windows"):
        assert torch.equal(getattr(again, part).mask, getattr(masked, part).mask)
    assert TrainingData.load(tmp_path / "plain").windows.mask is None
    assert b"mask" not in (tmp_path / "plain" / "latents.safetensors").read_bytes()[:1000]


def test_a_full_mask_for_one_sample_in_twenty_and_none_for_the_prior(base, masked, prior):
    stage = stage_of(base, masked, prior=prior)
    samples = [sample for step in range(200) for sample in stage.draw(step)]
    assert all(sample.mask is None for sample in samples if sample.origin == "prior")
    whole = [bool((sample.mask == 1).all()) for sample in samples if sample.origin == "concept"]
    assert sum(whole) / len(whole) == pytest.approx(0.05, abs=0.02)
    assert [a.mask is b.mask or torch.equal(a.mask, b.mask) for a, b in zip(stage.draw(7), stage.draw(7), strict=True)]


def test_masks_change_no_other_draw(tiny_folder, masked, plain):
    drawn = [stage_of(load_base(str(tiny_folder)), data).draw(3) for data in (masked, plain)]
    for with_mask, without in zip(*drawn, strict=True):
        assert torch.equal(with_mask.noise, without.noise)
        assert torch.equal(with_mask.sigma, without.sigma)


@pytest.mark.parametrize("name", ["lora", "set_and_sequence"])
def test_ones_everywhere_train_like_no_mask(tiny_folder, plain, name):
    whole = [MaskTrack.everything(9, 32, 32)]
    parts = [
        stage_of(load_base(str(tiny_folder)), data, name=name)
        for data in (encoded(load_base(str(tiny_folder)), whole), plain)
    ]
    losses = [float(stage.loss(stage.draw(0))[0].detach()) for stage in parts]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    assert parts[0].validate() == pytest.approx(parts[1].validate(), rel=1e-6)


def gradients(folder, data, prior, *, micro_batch=64, recompute=False):
    base = load_base(str(folder))
    base.set_gradient_checkpointing(recompute)
    stage = stage_of(base, data, prior=prior, micro_batch=micro_batch)
    for number, factor in enumerate(stage.trainable().values()):
        factor.data.normal_(std=0.1, generator=torch.Generator().manual_seed(number))
    for samples in micro_batches(stage.draw(0), micro_batch):
        stage.loss(samples)[0].backward()
    return {name: parameter.grad.clone() for name, parameter in stage.trainable().items()}


@pytest.mark.parametrize("change", [{"micro_batch": 5}, {"micro_batch": 1}, {"recompute": True}], ids=str)
def test_micro_batches_and_recomputation_give_the_same_masked_gradients(tiny_folder, masked, prior, change):
    whole, other = gradients(tiny_folder, masked, prior), gradients(tiny_folder, masked, prior, **change)
    for name, gradient in whole.items():
        torch.testing.assert_close(other[name], gradient, rtol=1e-5, atol=1e-6, msg=name)


def test_outside_the_subject_the_model_is_free(tiny_folder, masked):
    """With every sample masked, what the clip shows elsewhere has no part in the gradient."""
    base = load_base(str(tiny_folder))
    stage = stage_of(base, masked, full_mask_share=0.0)
    samples = stage.draw(0)
    errors = torch.stack([sample.clean for sample in samples]).requires_grad_()
    weights = torch.stack([sample.mask for sample in samples])
    mean_error(errors.square(), weights).sum().backward()
    assert errors.grad is not None
    assert bool((errors.grad[(weights == 0).expand_as(errors)] == 0).all())
    assert bool((weights == 0).any())


def test_the_validation_loss_is_masked_by_hand(base, masked):
    stage = stage_of(base, masked, name="set_and_sequence")
    sigmas = sigma_quantiles(8, base.spec.sigma_shift)
    errors = []
    for index, (clean, mask) in enumerate(
        zip(masked.held_out_frames.latents, masked.held_out_frames.mask, strict=True)
    ):
        noise = torch.randn(8, *clean.shape, generator=generator(5, "validation", index))
        text = with_learned(base, masked.frame_text, [0], {})
        for sigma, one in zip(sigmas, noise, strict=True):
            noisy = ((1 - sigma) * clean + sigma * one)[None]
            with torch.no_grad():
                squared = (base.velocity(noisy, sigma[None], text) - (one - clean)).square()
            errors.append((squared[0] * mask).sum() / (len(clean) * mask.sum()))
    assert stage.validate() == pytest.approx(float(torch.stack(errors).mean()), rel=1e-5)


def test_the_share_of_full_masks_is_no_part_of_a_key_until_it_is_changed():
    def plan(**changes):
        return PlainLora().plan(settings_from(PlainLora(), "portable", changes), has_clips=True)[0]

    assert "full_mask_share" not in plan().settings
    assert plan(full_mask_share=0.5).settings["full_mask_share"] == 0.5
