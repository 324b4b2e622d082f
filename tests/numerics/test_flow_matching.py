"""The maths against independent truth: diffusers' scheduler, closed forms, quadrature."""

import itertools

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from pipeline_lib import flow_matching as fm

DRAW = torch.Generator().manual_seed(0)
CLEAN, NOISE = torch.randn(2, 4, 3, 2, 3, 3, generator=DRAW, dtype=torch.float64)


def test_the_path_ends_at_clean_and_at_noise():
    ends = torch.tensor([0.0, 1.0, 0.0, 1.0], dtype=torch.float64)
    noisy = fm.interpolate(CLEAN, NOISE, ends)
    assert torch.equal(noisy[::2], CLEAN[::2])
    assert torch.equal(noisy[1::2], NOISE[1::2])


def test_the_path_is_the_one_that_diffusers_steps():
    scheduler = FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=3.0)
    scheduler.set_timesteps(7)
    for sigma, timestep in zip(scheduler.sigmas[:-1], scheduler.timesteps, strict=True):
        expected = scheduler.scale_noise(CLEAN.float(), timestep[None], NOISE.float())
        torch.testing.assert_close(fm.interpolate(CLEAN.float(), NOISE.float(), sigma.expand(4)), expected)


def test_the_velocity_is_the_derivative_of_the_path():
    sigma = torch.full((4,), 0.3, dtype=torch.float64)
    step = 1e-6
    slope = (fm.interpolate(CLEAN, NOISE, sigma + step) - fm.interpolate(CLEAN, NOISE, sigma - step)) / (2 * step)
    torch.testing.assert_close(fm.velocity_target(CLEAN, NOISE), slope, rtol=0, atol=1e-8)


@given(st.floats(0, 1))
@settings(max_examples=30, deadline=None)
def test_the_clean_estimate_of_the_true_velocity_is_clean(value):
    sigma = torch.full((4,), value, dtype=torch.float64)
    noisy = fm.interpolate(CLEAN, NOISE, sigma)
    torch.testing.assert_close(fm.clean_estimate(noisy, fm.velocity_target(CLEAN, NOISE), sigma), CLEAN)


def test_euler_along_the_exact_field_of_a_gaussian_reaches_its_closed_form():
    """For clean ~ N(m, s²) the optimal velocity is known; its flow maps noise z to m + s·z."""
    mean, std, steps = 1.5, 0.4, 4000
    z = torch.linspace(-2, 2, 9, dtype=torch.float64)
    x = z.clone()
    sigmas = torch.linspace(1, 0, steps + 1, dtype=torch.float64)
    for now, then in itertools.pairwise(sigmas):
        variance = (1 - now) ** 2 * std**2 + now**2
        centred = x - (1 - now) * mean
        noise, clean = now * centred / variance, mean + (1 - now) * std**2 * centred / variance
        x = x + (then - now) * fm.velocity_target(clean, noise)
    torch.testing.assert_close(x, mean + std * z, rtol=0, atol=2e-3)


@pytest.mark.parametrize("shift", [1.0, 3.0, 8.0])
def test_the_draws_follow_the_shifted_logit_normal(shift):
    draws = fm.logit_normal_sigma(torch.Generator().manual_seed(1), 20_000, shift).double().numpy()
    back = draws / (shift - (shift - 1) * draws)  # the inverse of the shift
    assert stats.kstest(np.log(back / (1 - back)), "norm").pvalue > 1e-3


def test_stratified_draws_fall_one_into_each_equally_likely_part():
    draws = fm.stratified_sigma(torch.Generator().manual_seed(2), 500, 3.0).double().numpy()
    back = draws / (3 - 2 * draws)
    parts = stats.norm.cdf(np.log(back / (1 - back))) * 500
    assert sorted(np.floor(parts).astype(int)) == list(range(500))
    assert abs(stats.spearmanr(draws, np.arange(500)).statistic) < 0.2  # in no order


def test_stratified_draws_are_each_distributed_like_plain_ones():
    firsts = [float(fm.stratified_sigma(torch.Generator().manual_seed(n), 8, 3.0)[0]) for n in range(2000)]
    back = np.array(firsts) / (3 - 2 * np.array(firsts))
    assert stats.kstest(np.log(back / (1 - back)), "norm").pvalue > 1e-3


def test_a_shift_of_one_changes_nothing_and_keeps_the_ends():
    sigma = torch.linspace(0, 1, 11)
    torch.testing.assert_close(fm.shift_sigma(sigma, 1.0), sigma)
    shifted = fm.shift_sigma(sigma, 5.0)
    assert shifted[0] == 0
    assert shifted[-1] == 1
    assert bool((shifted[1:-1] > sigma[1:-1]).all())


def test_quantiles_integrate_like_the_density():
    quantiles = fm.sigma_quantiles(256, shift=3.0).double()

    def integrand(z):
        sigma = 1 / (1 + np.exp(-z))
        return (3 * sigma / (1 + 2 * sigma)) ** 2 * stats.norm.pdf(z)

    expected, _ = integrate.quad(integrand, -8, 8)
    assert float((quantiles**2).mean()) == pytest.approx(expected, abs=1e-4)
    assert bool((quantiles.diff() > 0).all())
