"""The VLM path with a tiny model of the real classes: a random one falls back, a taught one is understood."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pipeline_lib.captions.template import TemplateCaptioner
from pipeline_lib.captions.vlm import VLMCaptioner
from pipeline_lib.errors import InputError
from tests.captions.tiny_vlm import tiny_vlm

ANSWER = {"static": "red", "motion": "runs", "camera": "none", "background": "on ice"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_vlm(tmp_path_factory.mktemp("vlm"))


def clip(count: int) -> NDArray[np.uint8]:
    frames = np.full((count, 64, 64, 3), (40, 168, 58), np.uint8)
    for index in range(count):
        frames[index, 24:44, 8 + 2 * index : 28 + 2 * index] = (214, 32, 32)
    return frames


def test_random_model_falls_back(folder: Path) -> None:
    captioner = VLMCaptioner(folder, max_new_tokens=4)
    expected = TemplateCaptioner().caption(clip(9), "dog")
    assert captioner.caption(clip(9), "a dog") == expected
    (note,) = captioner.notes
    assert note.endswith(
        "gave no field that can be read: static, motion, camera, background, light from the template captioner"
    )


def test_image_path(folder: Path) -> None:
    caption = VLMCaptioner(folder, max_new_tokens=4).caption(clip(1), "dog")
    assert (caption.class_noun, caption.motion, caption.camera) == ("dog", "", "")


def test_a_set_is_shown_as_pictures(folder: Path) -> None:
    captioner = VLMCaptioner(folder, max_new_tokens=4)
    assert captioner._inputs(clip(3), "dog", unordered=True)["image_grid_thw"].shape == (3, 3)
    assert captioner.caption(clip(3), "dog", unordered=True).motion == ""


def test_all_chosen_frames_reach_the_model(folder: Path) -> None:
    """The processor must not sample again: 8 frames are 4 pairs of patches in time."""
    inputs = VLMCaptioner(folder, num_frames=8)._inputs(clip(17), "dog")
    assert inputs["video_grid_thw"][0, 0] == 4


def test_taught_model_is_understood(folder: Path) -> None:
    """The same path, with a model that has learnt one answer by heart; one field is missing from it."""
    captioner = VLMCaptioner(folder, max_new_tokens=120)
    _teach(captioner, clip(5), json.dumps(ANSWER))
    caption = captioner.caption(clip(5), "dog")
    fallback = TemplateCaptioner().caption(clip(5), "dog")
    assert (caption.class_noun, caption.static, caption.motion) == ("dog", "red", "runs")
    assert (caption.camera, caption.background, caption.light) == ("", "on ice", fallback.light)
    assert captioner.notes == (f"{captioner.name} left fields out: light from the template captioner",)


def test_folder_without_model(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no captioner that can be loaded"):
        VLMCaptioner(tmp_path)
    with pytest.raises(InputError, match="holds no captioner"):
        VLMCaptioner(tmp_path / "absent")


def _teach(captioner: VLMCaptioner, frames: NDArray[np.uint8], answer: str) -> None:
    model, processor = captioner._model, captioner._processor
    inputs = captioner._inputs(frames, "dog")
    said = processor.tokenizer(answer + "<|endoftext|>", return_tensors="pt")["input_ids"]
    tokens = torch.cat([inputs["input_ids"], said], dim=1)
    labels = tokens.clone()
    labels[:, : inputs["input_ids"].shape[1]] = -100
    kinds = torch.cat([inputs["mm_token_type_ids"], torch.zeros_like(said)], dim=1)
    given = {
        **inputs,
        "input_ids": tokens,
        "attention_mask": torch.ones_like(tokens),
        "mm_token_type_ids": kinds,
        "labels": labels,
    }
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(400):
        loss = model(**given).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if loss.item() < 0.01:
            break
    assert loss.item() < 0.05


def test_what_the_model_is_not_sure_of_comes_from_the_fallback(folder: Path) -> None:
    captioner = VLMCaptioner(folder, max_new_tokens=120, least_confidence=0.2)
    _teach(captioner, clip(5), json.dumps(ANSWER | {"light": "dim"}))
    assert captioner.caption(clip(5), "dog").static == "red"
    assert captioner.notes == ()
    strict = VLMCaptioner(folder, max_new_tokens=120, least_confidence=1.0)
    strict._model = captioner._model
    said, fallback = strict.caption(clip(5), "dog"), TemplateCaptioner().caption(clip(5), "dog")
    assert (said.static, said.motion, said.background) == (fallback.static, fallback.motion, fallback.background)
    assert said.camera == ""  # "none" is no claim
    (note,) = strict.notes
    assert "is not sure of what it sees: static, motion, background, light from the template captioner" in note
