"""What a person finds in Prefect's UI beside the states: links, the loss of a stage, samples that move, scores."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, ArtifactFilterKey
from prefect.client.schemas.objects import Artifact
from prefect.context import FlowRunContext

from pipeline_lib.media.moving_picture import moving_picture
from pipeline_lib.records import SampleRecord, StageSpec
from pipeline_lib.report.wording import duration
from pipeline_lib.steps.layout import LOSSES_FILE, REPORT_FILE, SAMPLES_FILE
from pipeline_lib.steps.run_folder import RunResult
from pipeline_lib.steps.step import StepResult
from tasks.courtesy import courtesy
from tasks.flow_runs import ended_flow_runs, flow_run_tags
from tasks.progress import key_of
from tasks.session import RunSession

MOST_PICTURES = 8
_BARS = "▁▂▃▄▅▆▇█"
_CURVE_POINTS = 24


def accompany(session: RunSession) -> None:
    """Shows a run from here on: its page in MLflow, its links."""
    session.track(flow_run_tags(), ended_flow_runs)
    show_links(session)


def show_links(session: RunSession) -> None:
    """The run's pages in MLflow, where a server shows them; at the start, since its curves are live."""
    url = session.tracker.url
    if not url or _is_shown("mlflow"):
        return
    with courtesy("the run's address in MLflow"):
        create_link_artifact(url, "the run in MLflow", key="mlflow", description="settings, live curves, files, models")
        text, about = "the worker's log", "all that training wrote; there when the run has ended, however it ended"
        create_link_artifact(f"{url}/artifacts/{session.folder.log.name}", text, key="log", description=about)


def show_stage(spec: StageSpec, result: StepResult, folder: Path, url: str) -> None:
    """A trained stage: its loss as numbers and as a curve, and where all of it is drawn.

    Args:
        spec: what was trained.
        result: of the stage.
        folder: of its artifact.
        url: of the stage's page in MLflow; empty where there is none.
    """
    key = key_of(f"stage-{spec.name}")
    if result.found and _is_shown(key):
        return
    steps = [json.loads(line) for line in (folder / LOSSES_FILE).read_text().splitlines()]
    lines = [f"## Stage {spec.name}", "", "| | first | last | over the steps |", "|---|---|---|---|"]
    for name in ("loss", "validation_loss"):
        values = [step[name] for step in steps if name in step]
        if values:
            lines.append(f"| {name.replace('_', ' ')} | {values[0]:.4g} | {values[-1]:.4g} | {_curve(values)} |")
    took = "found trained, nothing to do" if result.found else f"in {duration(result.seconds)}"
    lines += ["", f"{spec.steps} steps on {spec.data}, {took}."]
    if url:
        lines += ["", f"[All curves, checkpoint figures and previews in MLflow]({url})"]
    with courtesy(key):
        create_markdown_artifact("\n".join(lines), key=key, description=f"{spec.steps} steps on {spec.data}, {took}")


def show_samples(which: str, result: StepResult, folder: Path, url: str) -> None:
    """Samples as small moving pictures, with a link to each video.

    Args:
        which: "base" or "personalised".
        result: of the step.
        folder: of its artifact.
        url: of the run's page in MLflow; empty where there is none.
    """
    key = f"samples-{which}"
    if result.found and _is_shown(key):
        return
    records = [SampleRecord.model_validate(item) for item in json.loads((folder / SAMPLES_FILE).read_text())]
    lines = [f"## Samples of the {which} model", "", "| prompt | seed | sample |", "|---|---|---|"]
    for record in records[:MOST_PICTURES]:
        frames = np.load((folder / record.file).with_suffix(".npy"), allow_pickle=False)
        picture = f"![{record.file}]({moving_picture(frames, record.frames_per_second)})"
        video = f" [video]({url}/artifacts/samples/{which}/{record.file})" if url else ""
        lines.append(f"| {plain(record.filled_prompt)} | {record.seed} | {picture}{video} |")
    if len(records) > MOST_PICTURES:
        lines += ["", f"{len(records) - MOST_PICTURES} more are in the report."]
    with courtesy(key):
        create_markdown_artifact("\n".join(lines), key=key, description=f"Samples of the {which} model")


def show_scores(scores: Mapping[str, Mapping[str, float]], run_id: str) -> None:
    """The scores as a table: a line a metric, a column a row of the report.

    Args:
        scores: row to metric to number.
        run_id: of the run.
    """
    metrics = dict.fromkeys(name for cells in scores.values() for name in cells)
    table: list[dict[str, Any]] = [
        {"metric": name, **{row: _short(cells.get(name)) for row, cells in scores.items()}} for name in metrics
    ]
    about = (
        f"Scores of {run_id}: the base before, the personalised model after; the ceiling is the clip itself, "
        "and of edits what they ask for, where that is known"
    )
    with courtesy("the scores"):
        create_table_artifact(table, key="scores", description=about)


def show_result(result: RunResult) -> None:
    """Where everything is, once the run is done; with the run's own notes."""
    places = {"report": result.report, "LoRA": result.lora, "concept": result.concept, "all files": result.run_dir}
    lines = [f"## {result.run_id} is done", "", *(f"- {name}: `{place}`" for name, place in places.items())]
    lines += ["", *(f"> {plain(note)}\n" for note in result.notes)]
    url, about = result.tracking.get("url", ""), "videos, scores, curves, how to use the result; one page, no server"
    with courtesy("the result"):
        if url:
            create_link_artifact(f"{url}/artifacts/{REPORT_FILE}", "the report", key="report", description=about)
        create_markdown_artifact("\n".join(lines), key="result", description=f"Files of {result.run_id}")


def plain(text: str) -> str:
    """Untrusted text as text: nothing of it is Markdown or HTML."""
    kept = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace("|", "&#124;")
    return "".join(f"\\{mark}" if mark in "\\`*_[]!" else mark for mark in kept)


def _is_shown(key: str) -> bool:
    """Whether an earlier try of the same flow run has shown this."""
    context = FlowRunContext.get()
    if context is None or context.flow_run is None or context.flow_run.run_count <= 1:
        return False
    found: list[Artifact] = []
    of_run, of_key = ArtifactFilterFlowRunId(any_=[context.flow_run.id]), ArtifactFilterKey(any_=[key])
    with courtesy(key), get_client(sync_client=True) as client:
        found = client.read_artifacts(artifact_filter=ArtifactFilter(flow_run_id=of_run, key=of_key))
    return bool(found)


def _curve(values: Sequence[float]) -> str:
    chunks = [chunk.mean() for chunk in np.array_split(np.array(values), min(_CURVE_POINTS, len(values)))]
    low, high = min(chunks), max(chunks)
    return "".join(_BARS[round((len(_BARS) - 1) * (value - low) / ((high - low) or 1.0))] for value in chunks)


def _short(value: float | None) -> float | str:
    return "" if value is None else float(f"{value:.4g}")
