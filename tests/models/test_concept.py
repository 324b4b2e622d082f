"""A concept folder on a stock pipeline: strengths, learned words, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import WanPipeline
from torch import Tensor

from pipeline_lib.errors import InputError
from pipeline_lib.models.adapter import Adapter
from pipeline_lib.models.concept import (
    Companions,
    idle_strengths,
    load_concept,
    read_concept,
    save_concept,
    unload_concept,
)
from pipeline_lib.models.learned_tokens import LearnedTokens
from pipeline_lib.models.self_conditioning import PatchProjection
from pipeline_lib.models.tiny import tiny_wan
from pipeline_lib.models.triple import LayerFactors, LoraTriple
from pipeline_lib.models.wan import WanBase
from pipeline_lib.records import Caption, ConceptRecord
from tests.models.factors import random_triple

SENTINEL = "<extra_id_0>"
PROMPT = f"a {SENTINEL} dog on the beach"
CALL: dict[str, Any] = {
    "height": 32,
    "width": 32,
    "num_frames": 5,
    "num_inference_steps": 2,
    "guidance_scale": 3.0,
    "output_type": "latent",
}


def record(**changes: Any) -> ConceptRecord:
    facts: dict[str, Any] = {
        "name": "my dog 1.5",
        "method": "set_and_sequence",
        "base": "pocket",
        "base_digest": "0" * 64,
        "family": "wan",
        "trigger": f"{SENTINEL} dog",
        "class_noun": "dog",
        "captions": (Caption(class_noun="dog"),),
        "stages": (),
        "rank": 3,
        "identity_strength": 0.8,
        "seed": 0,
        "data_digest": "1" * 64,
    }
    return ConceptRecord(**{**facts, **changes})


WORDS = Companions(LearnedTokens({"v": torch.ones(2)}, {"v": SENTINEL}))
ESTIMATE = Companions(self_conditioning=PatchProjection("patch_embedding", torch.ones(2, 2, 1, 1, 1)))


@pytest.mark.parametrize(
    ("basis", "residual", "beside", "strengths", "told"),
    [
        (1.0, True, WORDS, (0.5, 0.5), ""),
        (1.0, False, Companions(), (0.5, 1.0), ""),
        (1.0, False, Companions(), (1.0, 0.5), "m has no effect: x learned no motion of its own here; i scales all"),
        (1.0, False, WORDS, (1.0, 0.5), "i scales all that was learned but the words"),
        (0.0, False, WORDS, (1.0, 1.0), ""),
        (0.0, False, WORDS, (0.5, 1.0), "i has no effect: x learned words alone"),
        (0.0, False, WORDS, (1.0, 0.5), "m has no effect: x learned words alone"),
        (0.0, False, WORDS, (0.5, 0.5), "i and m have no effect: x learned words alone"),
        (0.0, False, ESTIMATE, (0.5, 0.5), "m has no effect: x learned no motion of its own here; i scales all"),
    ],
)
def test_strengths_that_change_nothing_are_told(
    basis: float, residual: bool, beside: Companions, strengths: tuple[float, float], told: str
) -> None:
    motion = torch.ones(1, 2) if residual else None
    triple = LoraTriple({"blocks.0": LayerFactors(torch.full((2, 1), basis), torch.ones(1, 2), motion)}, "output", 1)
    said = idle_strengths("x", triple, beside, strengths, ("i", "m"))
    assert told in said and bool(told) == bool(said)


def stock(folder: Path) -> WanPipeline:
    pipeline = WanPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def latents(pipeline: WanPipeline) -> Tensor:
    frames = pipeline(PROMPT, generator=torch.Generator().manual_seed(3), **CALL).frames
    assert isinstance(frames, Tensor)
    return frames


@pytest.fixture
def triple(base: WanBase) -> LoraTriple:
    return random_triple(base.transformer, base.spec.lora_targets)


@pytest.fixture
def tokens() -> LearnedTokens:
    vector = torch.randn(24, generator=torch.Generator().manual_seed(5))
    return LearnedTokens({"v": vector}, {"v": SENTINEL})


@pytest.mark.parametrize(("identity", "motion"), [(None, None), (1.0, 0.0), (0.3, 1.7)])
def test_it_equals_the_adapter_in_memory(
    tiny_folder: Path, base: WanBase, triple: LoraTriple, tmp_path: Path, identity: float | None, motion: float | None
) -> None:
    # The adapter has alpha = rank; a triple as it comes from training has scale 1.
    trained = LoraTriple(triple.layers, triple.basis, triple.rank)
    save_concept(tmp_path / "concept", record(), trained, None)
    pipeline = stock(tiny_folder)
    loaded = load_concept(pipeline, tmp_path / "concept", identity=identity, motion=motion)
    assert loaded == record()
    adapter = Adapter.from_triple(base.transformer, trained)
    adapter.set_strengths(0.8 if identity is None else identity, 1.0 if motion is None else motion)
    live = base.pipeline()
    live.set_progress_bar_config(disable=True)
    torch.testing.assert_close(latents(pipeline), latents(live), atol=1e-4, rtol=0)


def test_the_plain_file_is_the_concept_at_its_recorded_strengths(
    tiny_folder: Path, triple: LoraTriple, tmp_path: Path
) -> None:
    folder = save_concept(tmp_path / "concept", record(), triple, None)
    plain, whole = stock(tiny_folder), stock(tiny_folder)
    plain.load_lora_weights(folder / "lora.safetensors")
    load_concept(whole, folder)
    assert torch.equal(latents(plain), latents(whole))


def test_zero_strengths_and_unloading_are_the_base_exactly(
    tiny_folder: Path, triple: LoraTriple, tokens: LearnedTokens, tmp_path: Path
) -> None:
    folder = save_concept(tmp_path / "concept", record(), triple, None)
    pipeline = stock(tiny_folder)
    expected = latents(pipeline)
    load_concept(pipeline, folder, identity=0.0, motion=0.0)
    assert torch.equal(latents(pipeline), expected)
    save_concept(folder, record(), triple, tokens)
    load_concept(pipeline, folder)  # replaces the one of the same name
    assert not torch.allclose(latents(pipeline), expected, atol=1e-3)
    unload_concept(pipeline, "my dog 1.5")
    assert torch.equal(latents(pipeline), expected)


def test_a_learned_word_stands_in_the_stock_prompt_encoding(
    tiny_folder: Path, base: WanBase, triple: LoraTriple, tokens: LearnedTokens, tmp_path: Path
) -> None:
    folder = save_concept(tmp_path / "concept", record(), triple, tokens)
    pipeline = stock(tiny_folder)
    prompts = [PROMPT, "a cat"]
    before, _ = pipeline.encode_prompt(prompts, do_classifier_free_guidance=False, max_sequence_length=512)
    load_concept(pipeline, folder)
    after, _ = pipeline.encode_prompt(prompts, do_classifier_free_guidance=False, max_sequence_length=512)
    (position,) = [i for i, (low, high) in enumerate(base.token_spans(PROMPT)) if PROMPT[low:high] == SENTINEL]
    assert torch.equal(after[0, position], tokens.vectors["v"])
    changed = (after != before).any(dim=-1)
    assert changed.nonzero().tolist() == [[0, position]]
    # What training saw is what the stock pipeline now makes.
    trained = base.replace_rows(base.encode_text(prompts), [[position], []], tokens.vectors["v"])
    torch.testing.assert_close(after, trained.tensors["text"], atol=1e-5, rtol=0)


def test_reading_gives_back_what_was_saved(triple: LoraTriple, tokens: LearnedTokens, tmp_path: Path) -> None:
    concept = read_concept(save_concept(tmp_path / "concept", record(), triple, tokens))
    assert concept.record == record() and concept.tokens is not None
    assert concept.tokens.sentinels == {"v": SENTINEL}
    assert torch.equal(concept.tokens.vectors["v"], tokens.vectors["v"])
    for path, factors in triple.layers.items():
        assert torch.equal(concept.triple.layers[path].basis, factors.basis)


def test_another_base_is_refused_and_left_as_it_was(
    tiny_folder: Path, triple: LoraTriple, tokens: LearnedTokens, tmp_path: Path
) -> None:
    pipeline = stock(tiny_folder)
    expected = latents(pipeline)
    deeper = {path.replace("blocks.1.", "blocks.7."): factors for path, factors in triple.layers.items()}
    cut = {
        path: type(factors)(factors.basis[:-1], factors.coefficients, factors.residual)
        for path, factors in triple.layers.items()
    }
    for index, layers in enumerate((deeper, cut)):
        other = LoraTriple(layers, triple.basis, triple.rank)
        folder = save_concept(tmp_path / str(index), record(), other, None)
        with pytest.raises(InputError, match=r"concept my dog 1\.5 of base pocket does not fit this base at blocks"):
            load_concept(pipeline, folder)
        assert torch.equal(latents(pipeline), expected)
    wide = LearnedTokens({"v": torch.zeros(99)}, {"v": SENTINEL})
    unknown = LearnedTokens(tokens.vectors, {"v": "<extra_id_777>"})
    for index, (words, message) in enumerate(((wide, "width 99"), (unknown, "extra_id_777"))):
        folder = save_concept(tmp_path / f"words {index}", record(), triple, words)
        with pytest.raises(InputError, match=message):
            load_concept(pipeline, folder)
        assert torch.equal(latents(pipeline), expected)


def test_another_family_is_refused(tiny_folder: Path, triple: LoraTriple, tmp_path: Path) -> None:
    folder = save_concept(tmp_path / "concept", record(), triple, None)
    path = folder / "concept.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "family": "ltx"}))
    with pytest.raises(InputError, match="family ltx"):
        load_concept(stock(tiny_folder), folder)


def test_damaged_folders_are_named(triple: LoraTriple, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a concept"):
        read_concept(tmp_path / "absent")
    folder = save_concept(tmp_path / "concept", record(), triple, None)
    (folder / "triple.safetensors").write_bytes(b"no")
    with pytest.raises(InputError, match="triple"):
        read_concept(folder)
    (folder / "concept.json").write_text(record(schema_version=9).model_dump_json())
    with pytest.raises(InputError, match="another version"):
        read_concept(folder)


def test_a_concept_of_a_seed_twin_loads_there_too(triple: LoraTriple, tmp_path: Path) -> None:
    """Shapes decide, not the digest: a style-tuned sibling of the base may carry the concept."""
    folder = save_concept(tmp_path / "concept", record(), triple, None)
    assert load_concept(stock(tiny_wan(tmp_path / "sibling", seed=4)), folder).name == "my dog 1.5"
