"""Two experts: adapters on both, gradients by sigma, one triple, two files, a concept on a stock pipeline."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import WanPipeline
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from pipeline_lib.errors import InputError, StopRequested
from pipeline_lib.methods.method import StageInputs
from pipeline_lib.methods.set_and_sequence.method import SetAndSequence
from pipeline_lib.methods.settings import settings_from
from pipeline_lib.models.adapter import Adapter, AdapterSettings
from pipeline_lib.models.concept import load_concept, save_concept, unload_concept
from pipeline_lib.models.load import load_base
from pipeline_lib.models.lora_export import lora_files, read_lora, write_lora
from pipeline_lib.models.tiny import tiny_wan_a14b
from pipeline_lib.models.triple import SECOND_EXPERT, LoraTriple
from pipeline_lib.models.wan_experts import WanExperts
from pipeline_lib.models.wan_lora import WAN_NAMES
from pipeline_lib.training.checkpoint import Checkpoints
from pipeline_lib.training.data import TrainingData
from pipeline_lib.training.encode import EncodingSettings, encode_training_data
from pipeline_lib.training.loop import run_stage
from pipeline_lib.training.stage import Stage
from tests.models.factors import merge_by_hand, random_triple
from tests.models.test_concept import record
from tests.training.conftest import CAPTION, DROP, clip_of, moving_square

PREFIXES = ("", SECOND_EXPERT)
SETTINGS = {
    "rank": 2,
    "batch": 3,
    "identity_steps": 6,
    "motion_steps": 6,
    "prior_weight": 0,
    "optimizer": {"learning_rate": 1e-2},
}
CALL: dict[str, Any] = {
    "height": 32,
    "width": 32,
    "num_frames": 5,
    "num_inference_steps": 3,
    "guidance_scale": 3.0,
    "output_type": "latent",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_wan_a14b(tmp_path_factory.mktemp("a14b"))


@pytest.fixture
def base(folder: Path) -> WanExperts:
    loaded = load_base(str(folder))
    assert isinstance(loaded, WanExperts)
    return loaded


@pytest.fixture(scope="module")
def data(folder: Path) -> TrainingData:
    settings = EncodingSettings(num_frames=4, drop=DROP, subject="<extra_id_0> dog", motion="")
    return encode_training_data(load_base(str(folder)), [clip_of(moving_square(7))], [CAPTION], settings)


@pytest.fixture
def triple(base: WanExperts) -> LoraTriple:
    parts = [random_triple(denoiser, base.spec.lora_targets) for denoiser in denoisers(base)]
    layers = {
        prefix + path: dataclasses.replace(factors, basis=factors.basis * (1.5 if prefix else 1))
        for prefix, part in zip(PREFIXES, parts, strict=True)
        for path, factors in part.layers.items()
    }
    return LoraTriple(layers, parts[0].basis, parts[0].rank)


def denoisers(base: WanExperts) -> list[Any]:
    return [denoiser for _, denoiser in base.experts()]


def stock(folder: Path) -> Any:
    pipeline = WanPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def latents(pipeline: Any) -> Tensor:
    frames = pipeline("a red dog", generator=torch.Generator().manual_seed(3), **CALL).frames
    assert isinstance(frames, Tensor)
    return frames


def stages(base: WanExperts, data: TrainingData, **inputs: Any) -> tuple[Stage, SetAndSequence]:
    method = SetAndSequence()
    identity, motion = method.plan(settings_from(method, "portable", SETTINGS), has_clips=True)
    spec = motion if "previous" in inputs else identity
    given = StageInputs(
        data=data, prior=None, previous=inputs.get("previous"), seed=3, micro_batch=inputs.get("micro_batch", 64)
    )
    return method.build(spec, base, given), method


def test_a_fresh_adapter_is_the_base_and_comes_off_whole(base: WanExperts) -> None:
    names = [list(denoiser.state_dict()) for denoiser in denoisers(base)]
    noisy, sigma = torch.randn(2, 16, 2, 4, 4), torch.tensor([0.3, 0.95])
    text = base.encode_text(["a dog", "a cat"])
    before = base.velocity(noisy, sigma, text)
    adapter = Adapter.attach(denoisers(base), AdapterSettings(rank=2, targets=base.spec.lora_targets), 0)
    assert torch.equal(base.velocity(noisy, sigma, text), before)
    paths = list(adapter.factors("basis"))
    assert len(paths) == 2 * 2 * len(base.spec.lora_targets)
    assert [path.startswith(SECOND_EXPERT) for path in paths] == [False] * (len(paths) // 2) + [True] * (
        len(paths) // 2
    )
    for basis in adapter.factors("basis").values():
        basis.data += 1
    assert not torch.allclose(base.velocity(noisy, sigma, text), before)
    with adapter.disabled():
        assert torch.equal(base.velocity(noisy, sigma, text), before)
    adapter.detach()
    assert torch.equal(base.velocity(noisy, sigma, text), before)
    assert [list(denoiser.state_dict()) for denoiser in denoisers(base)] == names


@pytest.mark.parametrize(("sigmas", "learning"), [((0.875, 0.99), {""}), ((0.1, 0.87), {SECOND_EXPERT})])
def test_an_expert_learns_from_its_own_sigmas_alone(
    base: WanExperts, data: TrainingData, sigmas: tuple[float, ...], learning: set[str]
) -> None:
    stage, method = stages(base, data)
    drawn = [
        dataclasses.replace(sample, sigma=torch.tensor(sigma))
        for sample, sigma in zip(stage.draw(0), sigmas, strict=False)
    ]
    stage.loss(drawn)[0].backward()  # type: ignore[no-untyped-call]
    moved = {
        SECOND_EXPERT if name.startswith(SECOND_EXPERT) else ""
        for name, parameter in stage.trainable().items()
        if parameter.grad is not None and bool(parameter.grad.any())
    }
    assert moved == learning
    method.release(stage)


def test_a_mixed_batch_is_the_sum_of_its_samples(base: WanExperts, data: TrainingData) -> None:
    gradients = []
    for size in (3, 1):
        stage, method = stages(base, data, micro_batch=size)
        sigmas = torch.tensor([0.95, 0.2, 0.9])
        drawn = [dataclasses.replace(sample, sigma=sigma) for sample, sigma in zip(stage.draw(0), sigmas, strict=True)]
        for start in range(0, 3, size):
            stage.loss(drawn[start : start + size])[0].backward()  # type: ignore[no-untyped-call]
        gradients.append({name: parameter.grad for name, parameter in stage.trainable().items()})
        method.release(stage)
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], atol=1e-6, rtol=1e-4)


def run(stage: Stage, folder: Path, stop_after: int = 0) -> list[float]:
    seen: list[float] = []
    folder.mkdir(exist_ok=True)
    run_stage(
        stage,
        Checkpoints(folder, 100),
        on_step=lambda step: seen.append(step.metrics["loss"]),
        stop=lambda: bool(stop_after) and len(seen) + 1 >= stop_after,
    )
    return seen


def test_both_stages_train_both_experts_and_leave_the_base(
    base: WanExperts, data: TrainingData, tmp_path: Path
) -> None:
    before = [{name: value.clone() for name, value in module.state_dict().items()} for module in denoisers(base)]
    result = tmp_path / "identity"
    stage, method = stages(base, data)
    run(stage, result)
    figures = method.finish(stage, result)
    method.release(stage)
    assert figures["basis_norm"] > 0
    first = LoraTriple.load(result / "triple.safetensors")
    assert set(first.by_expert()) == set(PREFIXES)
    assert all(bool(factors.basis.any()) for factors in first.layers.values())

    stage, method = stages(base, data, previous=result)
    assert {name.rpartition(".")[2] for name in stage.trainable()} == {"residual"}
    run(stage, tmp_path / "motion")
    second = stage.adapter.triple()
    method.release(stage)
    for path, factors in second.layers.items():
        assert torch.equal(factors.basis, first.layers[path].basis)
        assert factors.residual is not None and bool(factors.residual.any()), path
    for module, kept in zip(denoisers(base), before, strict=True):
        after = module.state_dict()
        assert after.keys() == kept.keys()
        assert all(torch.equal(after[name], value) for name, value in kept.items())


def test_a_resumed_run_is_the_uninterrupted_one(base: WanExperts, data: TrainingData, tmp_path: Path) -> None:
    results = []
    for name, stop_after in (("whole", 0), ("parts", 1)):
        stage, method = stages(base, data)
        if stop_after:
            with pytest.raises(StopRequested):
                run(stage, tmp_path / name, stop_after)
            method.release(stage)
            stage, method = stages(base, data)
        run(stage, tmp_path / name)
        results.append({key: value.detach().clone() for key, value in stage.trainable().items()})
        method.release(stage)
    assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])


def test_the_triple_keeps_both(triple: LoraTriple, tmp_path: Path) -> None:
    triple.save(tmp_path / "triple.safetensors")
    read = LoraTriple.load(tmp_path / "triple.safetensors")
    assert set(read.layers) == set(triple.layers)
    for prefix, part in read.by_expert().items():
        assert not any(path.startswith(SECOND_EXPERT) for path in part.layers)
        for path, factors in part.layers.items():
            assert torch.equal(factors.basis, triple.layers[prefix + path].basis)


@pytest.mark.parametrize(("identity", "motion"), [(1.0, 1.0), (0.6, 1.4)])
def test_two_files_load_in_the_stock_pipeline_as_merged_weights(
    folder: Path,
    base: WanExperts,
    triple: LoraTriple,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    identity: float,
    motion: float,
) -> None:
    path = tmp_path / "lora.safetensors"
    high = write_lora(triple, path, family="wan", identity=identity, motion=motion, provenance={"method": "x"})
    assert sorted(tmp_path.iterdir()) == [high, tmp_path / "lora_low_noise.safetensors"]
    files = lora_files(triple, path)
    merged, loaded = stock(folder), stock(folder)
    untouched = latents(merged)
    parts = triple.by_expert()
    merge_by_hand(merged.transformer, parts[""], identity, motion)
    halfway = latents(merged)
    merge_by_hand(merged.transformer_2, parts[SECOND_EXPERT], identity, motion)
    expected = latents(merged)
    logger = logging.getLogger("diffusers")
    logger.addHandler(caplog.handler)  # diffusers' logger does not propagate
    try:
        loaded.load_lora_weights(files[""])
        loaded.load_lora_weights(files[SECOND_EXPERT], load_into_transformer_2=True)
    finally:
        logger.removeHandler(caplog.handler)
    assert [entry.getMessage() for entry in caplog.records if entry.levelno >= logging.WARNING] == []
    torch.testing.assert_close(latents(loaded), expected, atol=1e-4, rtol=0)
    for one, other in ((untouched, halfway), (halfway, expected)):
        assert (one - other).abs().max() > 0.05  # both experts take part
    known = WAN_NAMES.comfy_keys(base.transformer)
    for prefix, denoiser in zip(PREFIXES, (loaded.transformer, loaded.transformer_2), strict=True):
        live = {name for name, module in denoiser.named_modules() if hasattr(module, "lora_A")}
        keys = set(load_file(files[prefix]))
        assert len(keys) == 2 * len(live) == 2 * len(parts[prefix].layers) and keys <= known
        read = read_lora(files[prefix], "wan", denoisers(base)[0])
        for layer, (down, up) in parts[prefix].merged(identity, motion).items():
            assert torch.equal(read.layers[layer][0], down) and torch.equal(read.layers[layer][1], up)
        assert read.provenance["expert"] == ("low_noise" if prefix else "high_noise")
    with safe_open(high, framework="pt") as file:
        assert file.metadata()["mannerism.method"] == "x"


def test_a_concept_goes_on_both_experts_and_off_again(
    folder: Path, base: WanExperts, triple: LoraTriple, tmp_path: Path
) -> None:
    concept = save_concept(tmp_path / "concept", record(), triple, None)
    assert {"lora_high_noise.safetensors", "lora_low_noise.safetensors"} <= {file.name for file in concept.iterdir()}
    pipeline = stock(folder)
    bare = latents(pipeline)
    load_concept(pipeline, concept, identity=0.7, motion=1.2)
    adapter = Adapter.from_triple(denoisers(base), triple)
    adapter.set_strengths(0.7, 1.2)
    live: Any = base.pipeline()
    live.set_progress_bar_config(disable=True)
    torch.testing.assert_close(latents(pipeline), latents(live), atol=1e-4, rtol=0)
    unload_concept(pipeline, record().name)
    assert torch.equal(latents(pipeline), bare)


def test_concepts_of_another_number_of_experts_are_refused(
    folder: Path, tiny_folder: Path, base: WanExperts, triple: LoraTriple, tmp_path: Path
) -> None:
    one = triple.by_expert()[""]
    for trained, pipeline in ((one, stock(folder)), (triple, stock(tiny_folder))):
        concept = save_concept(tmp_path / f"{len(trained.layers)}", record(), trained, None)
        with pytest.raises(InputError, match="trained experts"):
            load_concept(pipeline, concept)
    names = [list(denoiser.state_dict()) for denoiser in denoisers(base)]
    with pytest.raises(InputError, match="number of experts"):
        Adapter.from_triple(denoisers(base), one)
    elsewhere = {f"{SECOND_EXPERT}no.{path}": factors for path, factors in one.layers.items()}
    with pytest.raises(InputError, match="does not fit"):
        Adapter.from_triple(denoisers(base), dataclasses.replace(one, layers={**one.layers, **elsewhere}))
    assert [list(denoiser.state_dict()) for denoiser in denoisers(base)] == names
    Adapter.from_triple(denoisers(base), triple).detach()


def test_self_conditioning_of_two_experts_is_refused(base: WanExperts, data: TrainingData) -> None:
    method = SetAndSequence()
    settings = settings_from(method, "portable", {**SETTINGS, "self_conditioning": "on"})
    spec = method.plan(settings, has_clips=True)[0]
    with pytest.raises(InputError, match="2 experts"):
        method.build(spec, base, StageInputs(data=data, prior=None, previous=None, seed=3, micro_batch=8))
