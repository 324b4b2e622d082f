"""Training stages: curves, time, and what is known of the result."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from pipeline_lib.records import StepRecord
from pipeline_lib.report.charts import Points, Series, line_chart, smoothed
from pipeline_lib.report.inputs import ReportStage
from pipeline_lib.report.wording import duration, plain_name

_MEANINGS = {
    "effective_rank": "Exponential entropy of the singular values of the layers' updates; mean over layers.",
    "basis_norm": "Frobenius norm of the layers' basis; mean over layers.",
    "basis_change": "How far the basis moved in this stage, over its norm; 0 where it was held.",
}
_RELATIVE_NORM = "_relative_norm"
_TOLD_ELSEWHERE = ("validation_held_out", "final_loss", "final_validation_loss")


@dataclass(frozen=True)
class StageView:
    """A stage's curves and figures.

    Attributes:
        title: its name.
        facts: steps, time, losses.
        figures: label, number and meaning of what is known of the result.
        loss: the chart of losses.
        legend: style and label of each line of it.
        gradient: the chart of the gradient norm; None where it was not reported.
    """

    title: str
    facts: str
    figures: tuple[tuple[str, str, str], ...]
    loss: Markup | None
    legend: tuple[tuple[str, str], ...]
    gradient: Markup | None


def stage_views(training: Sequence[StepRecord], stages: Mapping[str, ReportStage]) -> list[StageView]:
    """One view per stage, in order of training."""
    steps: dict[str, list[StepRecord]] = defaultdict(list)
    for record in training:
        steps[record.stage].append(record)
    return [_stage_view(name, members, stages.get(name, ReportStage())) for name, members in steps.items()]


def _stage_view(name: str, steps: Sequence[StepRecord], known: ReportStage) -> StageView:
    held_out = "held-out loss" if known.figures.get("validation_held_out") else "loss at fixed noise levels"
    lines = _loss_lines(steps, "held-out loss at fixed noise levels" if "held" in held_out else held_out)
    title, facts = plain_name(name), _facts(steps, known, held_out)
    gradient = _points(steps, "gradient_norm")
    norm = [Series("", "raw", gradient), Series("gradient norm", "smooth", smoothed(gradient))]
    drawn = any(line.points for line in lines)
    return StageView(
        title=title,
        facts=" · ".join(facts),
        figures=_figures(known.figures),
        loss=line_chart(lines, title=f"Losses of {title}: {facts[-1]}", x_label="step") if drawn else None,
        legend=tuple((line.style, line.label) for line in lines if line.label and line.points),
        gradient=line_chart(norm, title=f"Gradient norm of {title}", x_label="step") if gradient else None,
    )


def _loss_lines(steps: Sequence[StepRecord], validation: str) -> list[Series]:
    loss = _points(steps, "loss")
    parts = sorted({key for step in steps for key in step.metrics if key.endswith("_loss")} - {"validation_loss"})
    lines = [Series("", "raw", loss), Series("training loss, smoothed", "smooth", smoothed(loss))]
    if len(parts) > 1:
        lines += [
            Series(plain_name(key).lower(), f"part-{index}", smoothed(_points(steps, key)))
            for index, key in enumerate(parts)
        ]
    return [*lines, Series(validation, "validation", _points(steps, "validation_loss"), dots=True)]


def _facts(steps: Sequence[StepRecord], known: ReportStage, validation: str) -> list[str]:
    facts = [f"{len(steps)} of {steps[-1].steps} steps"]
    seconds = known.seconds or sum(step.seconds for step in steps)
    if seconds > 0:
        facts.append(duration(seconds))
    measured, loss = _points(steps, "validation_loss"), _points(steps, "loss")
    if measured:
        facts.append(f"{validation} {measured[0][1]:.4g} → {measured[-1][1]:.4g}")
    elif loss:
        ends = smoothed(loss)
        facts.append(f"training loss {ends[0][1]:.4g} → {ends[-1][1]:.4g}")
    return facts


def _figures(figures: Mapping[str, float]) -> tuple[tuple[str, str, str], ...]:
    told = []
    for name, value in figures.items():
        if name in _TOLD_ELSEWHERE:
            continue
        label, meaning = plain_name(name), _MEANINGS.get(name, "")
        if name.endswith(_RELATIVE_NORM):
            label = f"Norm of “{name.removesuffix(_RELATIVE_NORM)}”"
            meaning = "Norm of the learned word over an ordinary word's."
        told.append((label, f"{value:.3g}".replace("-", "−"), meaning))
    return tuple(told)


def _points(steps: Sequence[StepRecord], name: str) -> Points:
    return [(step.step, step.metrics[name]) for step in steps if name in step.metrics]
