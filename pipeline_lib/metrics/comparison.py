"""Methods side by side: from the scored samples of many runs to tables, orderings, wins and agreements."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from pydantic import Field

from pipeline_lib.metrics.aggregate import ScoredSample, check_one_encoder, in_group, values_by_key
from pipeline_lib.metrics.agreement import Agreement, agreements
from pipeline_lib.metrics.catalog import CATALOG
from pipeline_lib.metrics.gate import TRUTH
from pipeline_lib.metrics.orderings import Finding, Ordering, findings
from pipeline_lib.metrics.over_concepts import (
    Cells,
    ConceptMean,
    concept_means,
    mean_over_concepts,
    over_seeds,
    paired,
    paired_values,
)
from pipeline_lib.metrics.pareto import pareto_front
from pipeline_lib.metrics.wins import Wins, pairwise_wins, products
from pipeline_lib.records import Record

BASE, CEILING, CHANCE = "base", "ceiling", "chance"
"""Rows that every run brings along beside its own: the untrained base, the reference, other concepts."""
BESIDE = (BASE, CEILING, CHANCE)
RECONSTRUCTION, EDITS = "reconstruction", "edits"
KINDS = ("local", "global")
"""Edits of the subject itself, and of what is around it (:class:`pipeline_lib.records.Prompt`)."""
TRADE_OFFS = (
    ("edit_accuracy", "identity_accuracy"),
    ("clip_t_aggregated", "dino_i"),
    ("clip_t_aggregated", "clip_i"),
)
"""Following the prompt against keeping the subject: by the truth, else as encoders see it."""


IDENTITY, LOOKS = "identity_accuracy", ("subject_identity", "dino_i", "clip_i")
"""The truth, and what encoders have in its place."""
ABOVE_CHANCE = 0.05
"""A method shows its subject in so many frames more than clips of other concepts do, or it learned nothing."""


class Together(Record):
    """Several metrics in the same sample: their product, which is nothing where one of them is missed.

    Attributes:
        metrics: that are multiplied.
        means: of each row, the base included.
        gains: by how much it is more than the first method's, of each other row; in pairs over concepts.
    """

    metrics: tuple[str, ...]
    means: dict[str, ConceptMean]
    gains: dict[str, ConceptMean]


class TradeOff(Record):
    """Two metrics of edit prompts that pull against each other.

    Attributes:
        across: following the prompt.
        up: keeping the subject.
        points: of each row.
        front: rows that none dominates.
        together: both at once, the subject and edited as asked, and both with its motion, where that was measured. A
            copy of the clip has none of it, and neither has the base. Only by the truth, whose metrics end at one.
    """

    across: str
    up: str
    points: dict[str, tuple[ConceptMean, ConceptMean]]
    front: tuple[str, ...]
    together: tuple[Together, ...] = ()


class ComparedScores(Record):
    """What a comparison found, in numbers; equal samples give equal bits.

    Attributes:
        tables: group of prompts → row → metric → mean.
        differences: the same as differences to the first method, on equal concepts, prompts and seeds; of each kind
            of edits, too.
        asked_for: each kind of edits, where there are both, else edits → row → metric → how much more than the very
            clip that was asked for, by encoders. Apart, since what is too much in one kind and too little in the
            other would look right together. Empty where no truth tells that clip.
        kinds: kind of edits → row → metric → mean, where there are both.
        slices: slice → row → metric → mean, on edit prompts.
        slice_sizes: slice → how many concepts.
        trade_off: None without the metrics for it.
        wins: of the first row against the others, on edit prompts.
        findings: of orderings, on edit prompts.
        agreements: group of prompts → learned metrics against the truth, over methods that learned the subject.
    """

    tables: dict[str, Cells]
    differences: dict[str, Cells] = Field(default_factory=dict)
    asked_for: dict[str, Cells] = Field(default_factory=dict)
    kinds: dict[str, Cells] = Field(default_factory=dict)
    slices: dict[str, Cells] = Field(default_factory=dict)
    slice_sizes: dict[str, int] = Field(default_factory=dict)
    trade_off: TradeOff | None = None
    wins: tuple[Wins, ...] = ()
    findings: tuple[Finding, ...] = ()
    agreements: dict[str, tuple[Agreement, ...]] = Field(default_factory=dict)


def compared(
    samples: Sequence[ScoredSample],
    methods: Sequence[str],
    orderings: Sequence[Ordering] = (),
    slices: Mapping[str, Collection[str]] | None = None,
    outside: Collection[str] = (),
) -> ComparedScores:
    """Compares methods.

    Args:
        samples: with a method's label as their row, and the rows `BESIDE` once for each concept.
        methods: labels in the order of the tables; the first one is held against each other one.
        orderings: that are tested.
        slices: names of the concepts of each slice, in the order of the tables.
        outside: concepts that count in slices alone, such as pairs of subjects that are there by themselves, too.

    Returns:
        All numbers.

    Raises:
        InputError: a metric's scores come from different encoders or preprocessings.
    """
    check_one_encoder(samples)
    samples = [as_judged(sample) for sample in samples]
    everything = in_group(samples, False)
    samples = [sample for sample in samples if sample.concept not in outside]
    groups = {RECONSTRUCTION: in_group(samples, True), EDITS: in_group(samples, False)}
    edits, rows = groups[EDITS], [CHANCE, BASE, *methods, CEILING]
    tables = {name: concept_means(members, rows) for name, members in groups.items()}
    kinds = {kind: [sample for sample in edits if sample.kind == kind] for kind in KINDS}
    kinds = kinds if all(kinds.values()) else {}
    alike = slices or {}
    return ComparedScores(
        tables=tables,
        differences={name: _differences(members, methods) for name, members in {**groups, **kinds}.items()},
        asked_for={
            kind: cells
            for kind, members in (kinds or {EDITS: edits}).items()
            if (cells := _against_asked_for(members, [BASE, *methods]))
        },
        kinds={kind: concept_means(members, rows) for kind, members in kinds.items()},
        slices={
            kind: concept_means([s for s in everything if s.concept in names], rows) for kind, names in alike.items()
        },
        slice_sizes={kind: len(names) for kind, names in alike.items()},
        trade_off=_trade_off(edits, tables[EDITS], methods),
        wins=tuple(pairwise_wins(edits, methods[0], methods[1:])) if methods else (),
        findings=tuple(findings(edits, orderings)),
        agreements={
            name: tuple(agreements(members, _learners(tables[name], methods))) for name, members in groups.items()
        },
    )


def _differences(samples: Sequence[ScoredSample], methods: Sequence[str]) -> Cells:
    found: Cells = {}
    for row in methods[1:]:
        pairs = {name: paired_values(samples, row, methods[0], name) for name in CATALOG}
        means = {name: mean for name, values in pairs.items() if (mean := mean_over_concepts(values))}
        if means:
            found[row] = means
    return found


def _against_asked_for(edits: Sequence[ScoredSample], rows: Sequence[str]) -> Cells:
    """Each row minus the ceiling of edits on equal concepts and prompts.

    The clip that was asked for is one, whatever the seed and whatever was asked not to be there.
    """
    edits = [s.model_copy(update={"negative": ""}) for s in edits if s.kind != RECONSTRUCTION]
    found: Cells = {}
    for row in rows:
        for name in (name for name, metric in CATALOG.items() if metric.source != "truth"):
            clips = over_seeds(values_by_key(edits, CEILING, name))
            mean = mean_over_concepts(paired(over_seeds(values_by_key(edits, row, name)), clips))
            if mean:
                found.setdefault(row, {})[name] = mean
    return found


def _trade_off(samples: Sequence[ScoredSample], cells: Cells, methods: Sequence[str]) -> TradeOff | None:
    for across, up in TRADE_OFFS:
        points = {
            row: (cells[row][across], cells[row][up])
            for row in (BASE, *methods)
            if row in cells and {across, up} <= cells[row].keys()
        }
        if points:
            front = pareto_front({row: (first.mean, second.mean) for row, (first, second) in points.items()})
            known = [(up, across), TRUTH] if {across, up} <= set(TRUTH) else []
            together = [_together(samples, list(points), metrics, methods) for metrics in known]
            told = tuple(each for each in together if each.means)
            return TradeOff(across=across, up=up, points=points, front=front, together=told)
    return None


def _together(
    samples: Sequence[ScoredSample], rows: Sequence[str], metrics: tuple[str, ...], methods: Sequence[str]
) -> Together:
    """Of samples that have all: a prompt for a colour tells nothing of identity, a moving camera nothing of motion."""
    values = {row: products(samples, row, metrics) for row in rows}
    first = values.get(methods[0], {}) if methods else {}
    means = {row: mean_over_concepts(own) for row, own in values.items()}
    gains = {row: mean_over_concepts(paired(values[row], first)) for row in rows if row not in methods[:1]}
    return Together(
        metrics=metrics,
        means={row: mean for row, mean in means.items() if mean},
        gains={row: gain for row, gain in gains.items() if gain},
    )


def as_judged(sample: ScoredSample) -> ScoredSample:
    """What of a sample counts: not what encoders say of the look where the judge says nothing of it.

    Args:
        sample: whose judge may have given a reason, that another colour was asked for, in the place of a number.

    Returns:
        The sample; those encoders' scores have that reason, too.
    """
    (refused, *_) = [*(s.reason for s in sample.scores if s.metric == IDENTITY and s.value is None), ""]
    if not refused:
        return sample
    scores = tuple(
        score.model_copy(update={"value": None, "reason": refused}) if score.metric in LOOKS else score
        for score in sample.scores
    )
    return sample.model_copy(update={"scores": scores})


def _learners(cells: Cells, methods: Sequence[str]) -> list[str]:
    """Methods whose samples show the subject at all, where that is known: whatever tells the others apart agrees."""
    chance = cells.get(CHANCE, {}).get(IDENTITY)
    least = (chance.mean if chance else 0.0) + ABOVE_CHANCE
    return [row for row in methods if IDENTITY not in cells.get(row, {}) or cells[row][IDENTITY].mean >= least]
