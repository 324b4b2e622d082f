"""Evaluate: every sample against the reference, and the reference itself through the autoencoder; see `scale.py`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline_lib.metrics.aggregate import ScoredSample, in_group, paired_differences, summary
from pipeline_lib.observers import scoring_segmenter
from pipeline_lib.records import ArtifactRef
from pipeline_lib.registry import encoder_folder, truth_weights
from pipeline_lib.sections import ENCODERS
from pipeline_lib.steps.layout import CEILING, SCORES_FILE, SUMMARY_FILE
from pipeline_lib.steps.mask import mask_words
from pipeline_lib.steps.plan import SCORED
from pipeline_lib.steps.sampling import unseeded_facts
from pipeline_lib.steps.scale import Encoders, Scale
from pipeline_lib.steps.step import Recipe, StepContext, StepResult, find_or_build
from pipeline_lib.storage import ArtifactStore, write_atomic
from pipeline_lib.storage.files import CHECKSUMS

STAGE_VERSION = 5
KIND, KNOWN_KIND = "scores", "known_scores"


def evaluate(context: StepContext, inputs: dict[str, ArtifactRef]) -> StepResult:
    """Writes all scores and their summary, and the reference after the autoencoder.

    What no training changes (the base's samples, the ceiling, chance) is an artifact of its own: methods that are
    compared on one concept share it, and so does a champion that is scored anew.

    Args:
        context: base and encoders.
        inputs: `clips`, `captions`, `before` and `after`, the samples of both models; `masks`, where the run has them.

    Returns:
        The scores, found or made.
    """

    def make(folder: Path, _: str) -> dict[str, float]:
        scale = Scale(context, inputs, _encoders(context))
        known = _known(context, inputs, scale)
        scale.expects(inputs["after"])
        shutil.copytree(context.store.folder(known) / CEILING, folder / CEILING)
        rows = load_scores(context.store, known)
        base = [row for row in rows if row.row == "base"]
        scored = [*base, *scale.samples(inputs["after"]), *rows[len(base) :]]
        _write(folder, SCORES_FILE, [item.model_dump() for item in scored])
        groups = {"rows": scored, "reconstruction": in_group(scored, True), "edits": in_group(scored, False)}
        tables = {name: _plain_table(members) for name, members in groups.items()}
        differences = paired_differences(scored, "personalised", "base")
        changes = {name: change.model_dump() for name, change in differences.items()}
        _write(folder, SUMMARY_FILE, {**tables, "changes": changes})
        return {"samples": len(scored)}

    return find_or_build(context, _recipe(context, KIND, inputs), make)


def load_scores(store: ArtifactStore, ref: ArtifactRef) -> list[ScoredSample]:
    """The scored samples of a finished artifact."""
    loaded = json.loads((store.folder(ref) / SCORES_FILE).read_text(encoding="utf-8"))
    return [ScoredSample.model_validate(item) for item in loaded]


def _known(context: StepContext, inputs: dict[str, ArtifactRef], scale: Scale) -> ArtifactRef:
    """The base's rows first, then all that no model makes."""

    def make(folder: Path, _: str) -> None:
        before = inputs["before"]
        scale.expects(inputs["after"], before, ceiling=True)
        rows = [*scale.samples(before), *scale.ceiling(folder / CEILING), *scale.by_truth(before)]
        _write(folder, SCORES_FILE, [row.model_dump() for row in rows])

    untrained = {name: ref for name, ref in inputs.items() if name != "after"}
    return find_or_build(context, _recipe(context, KNOWN_KIND, untrained), make, told=False).ref


def _recipe(context: StepContext, kind: str, inputs: dict[str, ArtifactRef]) -> Recipe:
    config = context.config
    folders = {role: encoder_folder(config, role) for role in ENCODERS}
    segmenter = scoring_segmenter(config) if folders["identity_encoder"] else None
    return Recipe(
        step="evaluate",
        kind=kind,
        version=STAGE_VERSION,
        inputs=[inputs[name] for name in SCORED if name in inputs],
        settings={
            **{role: _weights(folder) for role, folder in folders.items()},
            "segmenter": [*_weights(segmenter), mask_words(config)] if segmenter else [],
            "truth": [config.evaluation.truth, *map(CHECKSUMS.of, truth_weights(config))],
            "concept": config.concept_name,
        },
        extra=unseeded_facts(context),  # samples have seeds of their own: the run's does not count
    )


def _encoders(context: StepContext) -> Encoders:
    shelf, device = context.shelf, str(context.base.device)
    image_text, image, identity = (encoder_folder(context.config, role) for role in ENCODERS)
    segmenter = scoring_segmenter(context.config) if identity else None
    return Encoders(
        shelf.encoder(image_text, device) if image_text else None,
        shelf.image_encoder(image, device) if image else None,
        shelf.identity_encoder(identity, device) if identity else None,
        shelf.segmenter(segmenter, device) if segmenter else None,
    )


def _plain_table(samples: Sequence[ScoredSample]) -> Mapping[str, Mapping[str, Any]]:
    return {row: {name: cell.model_dump() for name, cell in cells.items()} for row, cells in summary(samples).items()}


def _weights(folder: Path | None) -> list[str]:
    if folder is None:
        return []
    return [CHECKSUMS.of(path) for path in sorted(folder.iterdir()) if path.suffix in (".json", ".safetensors")]


def _write(folder: Path, name: str, values: Any) -> None:
    write_atomic(folder / name, json.dumps(values, indent=1, sort_keys=True, allow_nan=False))
