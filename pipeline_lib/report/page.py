"""The page of a run: what it was taught from, its samples, their scores, how it was trained."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from pipeline_lib.report.inputs import ReportInputs
from pipeline_lib.report.self_contained import page_text
from pipeline_lib.report.stages import stage_views
from pipeline_lib.report.tables import score_tables
from pipeline_lib.report.usage import usage
from pipeline_lib.report.verdict import asked_for_seen, truth_known, verdict
from pipeline_lib.report.view import clip_views, encoder_lines, opening_tiles, prompt_cards, taught_from
from pipeline_lib.report.wording import ROW_LABELS, duration, plain_name
from pipeline_lib.storage.files import write_atomic


def write_report(inputs: ReportInputs, path: Path) -> Path:
    """Write the page; an older one at the same place is replaced in one go.

    Args:
        inputs: what it shows.
        path: of the `.html` file; its folder is made when missing.

    Returns:
        `path`.

    Raises:
        InputError: a file to embed is missing or of the wrong type, or scores mix encoders.
        ResourceError: the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, render(inputs))
    return path


def render(inputs: ReportInputs) -> str:
    """The page as text; see :func:`write_report`."""
    concept = inputs.concept
    clips = clip_views(inputs.clips, concept.class_noun)
    cards = prompt_cards(inputs)
    return page_text(
        "report.html",
        script="script.js",
        concept=concept,
        method=plain_name(concept.method),
        created=inputs.created,
        duration=duration(inputs.seconds) if inputs.seconds > 0 else "",
        verdict=verdict(inputs.scores, taught_from(inputs.clips)) if inputs.scores else None,
        opening=opening_tiles(inputs, clips, cards),
        shape=_shape(inputs),
        pixelated=bool(inputs.clips) and max(inputs.clips[0].record.width, inputs.clips[0].record.height) <= 128,
        clips=clips,
        cards=cards,
        tables=score_tables(inputs.scores),
        truth_known=truth_known(inputs.scores),
        asked_for=asked_for_seen(inputs.scores),
        row_labels=ROW_LABELS,
        stages=stage_views(inputs.training, inputs.stages),
        usage=usage(inputs),
        settings=_as_yaml(inputs.settings),
        provenance=_provenance(inputs),
        artifacts=inputs.artifacts,
        notes=inputs.notes,
    )


def _shape(inputs: ReportInputs) -> str:
    if not inputs.clips:
        return "square"
    ratio = inputs.clips[0].record.width / inputs.clips[0].record.height
    return "wide" if ratio > 1.2 else "tall" if ratio < 0.83 else "square"


def _as_yaml(settings: Mapping[str, Any]) -> str:
    if not settings:
        return ""
    return yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True, width=100).strip()


def _provenance(inputs: ReportInputs) -> list[tuple[str, str]]:
    concept = inputs.concept
    stages = ", ".join(f"{stage.name} ({stage.steps} steps, version {stage.version})" for stage in concept.stages)
    lines = [
        ("data digest", concept.data_digest),
        ("base", f"{concept.base} ({concept.family})"),
        ("base digest", concept.base_digest),
        ("method", concept.method),
        ("stages", stages),
        ("rank and basis", f"{concept.rank}, {concept.basis}"),
        ("strengths", f"identity {concept.identity_strength:g}, motion {concept.motion_strength:g}"),
        ("seed", str(concept.seed)),
        ("seeds of samples", ", ".join(map(str, dict.fromkeys(s.record.seed for s in inputs.samples)))),
        ("code version", concept.version),
        *inputs.provenance.items(),
        *encoder_lines(inputs.scores),
    ]
    return [(label, text) for label, text in lines if text]
