"""Who the subject is, scored in a run: whole frames without a segmenter, else its masks and the run's own track."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline_lib import registry
from pipeline_lib.features.identity import CropIdentityEncoder
from pipeline_lib.masks.clipseg import ClipSegSegmenter
from pipeline_lib.metrics.identity import measure_identity
from pipeline_lib.observers import scoring_segmenter
from pipeline_lib.pocket.zoo import zoo_folder
from pipeline_lib.records import Score
from pipeline_lib.registry import NamedBase
from pipeline_lib.run_config import with_settings
from pipeline_lib.steps.evaluate import load_scores
from pipeline_lib.steps.mask import load_masks
from pipeline_lib.steps.prepare import load_clips
from pipeline_lib.steps.run_folder import RunFolder, RunRecord, RunResult, fingerprint
from pipeline_lib.steps.scale import Encoders, Scale
from pipeline_lib.steps.shelf import ModelShelf
from pipeline_lib.steps.step import StepContext
from tests.steps.conftest import Finished

Again = Callable[..., RunResult]


def record_of(finished: Finished, result: RunResult) -> RunRecord:
    record = RunFolder(finished.state, result.run_id).record()
    assert record is not None
    return record


def identities(finished: Finished, record: RunRecord) -> list[Score]:
    samples = load_scores(finished.state.store, record.steps["evaluate"].ref)
    found = [score for sample in samples for score in sample.scores if score.metric == "subject_identity"]
    assert len(found) == len(samples)
    return found


def test_an_identity_encoder_changes_scores_alone_and_takes_whole_frames(finished: Finished, run_again: Again) -> None:
    reasons = {score.reason for score in identities(finished, record_of(finished, finished.result))}
    assert reasons == {"no identity encoder was given"}
    named = with_settings(finished.config, [f"evaluation.identity_encoder={zoo_folder('identity')}"])
    record = record_of(finished, run_again(named))
    assert {name for name, step in record.steps.items() if not step.found} == {"evaluate", "report"}
    scores = identities(finished, record)
    assert all(score.value is not None and score.encoder == "identity" for score in scores)
    assert {score.preprocessing.partition(",")[0] for score in scores} == {"no segmenter: whole frames"}
    assert run_again(named).found


def test_a_base_with_a_segmenter_scores_the_subject_inside_the_runs_own_masks(
    finished: Finished, run_again: Again, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mask = np.zeros((32, 32), np.uint8)
    mask[6:20, 4:20] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    plain, folder = fingerprint(finished.config), Path(finished.config.base.source)
    own = NamedBase(folder, "portable", None, None, zoo_folder("identity"), segmenter=zoo_folder("segmenter"))
    monkeypatch.setitem(registry.BASES, str(folder), own)
    assert fingerprint(finished.config) != plain, "the models that a base brings count"
    record = record_of(finished, run_again(with_settings(finished.config, [f"mask.segmenter={tmp_path / 'mask.png'}"])))
    steps = record.steps
    rests_on = finished.state.store.get(steps["evaluate"].ref).manifest.inputs
    assert steps["mask"].ref in rests_on
    scores = identities(finished, record)
    assert {score.preprocessing.partition(",")[0] for score in scores} == {"masks of clipseg:segmenter"}
    encoders = Encoders(None, None, CropIdentityEncoder(zoo_folder("identity")), ClipSegSegmenter(own.segmenter))
    context = StepContext(finished.config, finished.state.store, ModelShelf(finished.state.locks))
    inputs = {"clips": steps["prepare"].ref, "captions": steps["caption"].ref, "masks": steps["mask"].ref}
    known = Scale(context, inputs, encoders).identity
    (clip,) = load_clips(finished.state.store, inputs["clips"])
    (track,) = load_masks(finished.state.store, inputs["masks"])
    assert known is not None
    expected = measure_identity([clip.frames], encoders.identity, encoders.segmenter, known.noun, [track])
    assert torch.equal(known.embeddings, expected.embeddings)
    assert not known.embeddings.isnan().any(), "whatever the segmenter finds"


def test_the_users_own_segmentation_model_finds_the_subject_in_samples_too(finished: Finished, tmp_path: Path) -> None:
    def segmenter(name: object) -> Path | None:
        return scoring_segmenter(with_settings(finished.config, [f"mask.segmenter={name}"]))

    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "mask.png")
    assert segmenter("none") is None, "this base brings none"
    assert segmenter(tmp_path / "mask.png") is None, "masks of the clip tell nothing of samples"
    assert segmenter(zoo_folder("segmenter")) == zoo_folder("segmenter")
    pocket = with_settings(finished.config, ["base.source=pocket", f"mask.segmenter={tmp_path / 'mask.png'}"])
    assert scoring_segmenter(pocket) == zoo_folder("segmenter")
