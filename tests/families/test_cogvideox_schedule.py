"""The translation between the flow path and CogVideoX's timesteps, against the stock scheduler's own arithmetic."""

from __future__ import annotations

import pytest
import torch
from diffusers import CogVideoXDDIMScheduler, CogVideoXDPMScheduler
from torch import Tensor

from pipeline_lib.flow_matching import interpolate, logit_normal_sigma, sigma_quantiles, velocity_target
from pipeline_lib.models.cogvideox_schedule import DiffusionSchedule

TIMESTEPS = [0, 1, 7, 50, 123, 250, 400, 501, 700, 900, 997, 998, 999]
Stock = CogVideoXDDIMScheduler | CogVideoXDPMScheduler


def published(snr_shift_scale: float, kind: type[Stock] = CogVideoXDDIMScheduler) -> Stock:
    return kind(
        beta_start=0.00085,
        beta_end=0.012,
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        snr_shift_scale=snr_shift_scale,
    )


@pytest.fixture(params=[(3.0, CogVideoXDDIMScheduler), (1.0, CogVideoXDPMScheduler)], ids=["2b", "5b"])
def stock(request: pytest.FixtureRequest) -> Stock:
    return published(*request.param)


@pytest.fixture
def schedule(stock: Stock) -> DiffusionSchedule:
    return DiffusionSchedule(stock.alphas_cumprod)


def draw(*shape: int, seed: int = 2) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_each_timestep_has_its_sigma(stock: Stock, schedule: DiffusionSchedule) -> None:
    sigmas = schedule.sigmas
    assert torch.equal(schedule.nearest(sigmas), torch.arange(1000))
    assert schedule.nearest(torch.tensor([0.0, 1.0])).tolist() == [0, 999]
    assert sigmas[-1] == 1
    alpha_bar = stock.alphas_cumprod
    odds = (1 - alpha_bar[:-1]).sqrt() / alpha_bar[:-1].sqrt()
    torch.testing.assert_close(odds, (sigmas / (1 - sigmas))[:-1].to(odds), atol=0, rtol=1e-3)


@pytest.mark.parametrize("timestep", TIMESTEPS)
def test_the_two_paths_meet_at_every_timestep(stock: Stock, schedule: DiffusionSchedule, timestep: int) -> None:
    clean, noise, at = draw(2, 4, 3, 4, 4), draw(2, 4, 3, 4, 4, seed=3), torch.tensor([timestep] * 2)
    rescaled = schedule.rescaled(interpolate(clean, noise, schedule.sigmas[at]), at)
    torch.testing.assert_close(rescaled, stock.add_noise(clean, noise, at), atol=2e-6, rtol=0)
    v = stock.get_velocity(clean, noise, at)
    ours = schedule.velocity(rescaled, v, at)
    torch.testing.assert_close(ours, velocity_target(clean, noise), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("snr_shift_scale", "half_gap", "first", "shift", "apart", "root_mean_square"),
    [(3.0, 0.0097, 0.0481, 3.07, 0.089, 0.051), (1.0, 0.0060, 0.0283, 1.77, 0.085, 0.056)],
)
def test_what_the_schedule_is_said_to_cost(
    snr_shift_scale: float, half_gap: float, first: float, shift: float, apart: float, root_mean_square: float
) -> None:
    """The figures of the module's documentation, on the published schedules."""
    schedule = DiffusionSchedule(published(snr_shift_scale).alphas_cumprod)
    sigmas = schedule.sigmas.double()
    gaps = sigmas.diff()
    assert float(gaps.max()) / 2 == pytest.approx(half_gap, abs=1e-4) and int(gaps.argmax()) == 0
    assert float(sigmas[0]) == pytest.approx(first, abs=1e-4)
    assert schedule.median_shift == pytest.approx(shift, abs=0.005)
    drawn = logit_normal_sigma(torch.Generator().manual_seed(0), 100_000, schedule.median_shift)
    distance = (drawn - schedule.sigmas[schedule.nearest(drawn)]).abs()
    assert float(distance.mean()) < 2.5e-4 and float(distance.quantile(0.99)) < 1.05e-3
    assert float(distance[drawn > sigmas[0]].max()) <= half_gap + 1e-4
    off = sigma_quantiles(1000, schedule.median_shift).double() - sigmas
    assert float(off.abs().max()) <= apart + 5e-4
    assert float(off.square().mean().sqrt()) <= root_mean_square
    assert float(off[499:501].abs().max()) < 1e-3  # the medians meet
