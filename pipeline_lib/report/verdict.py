"""The run in one sentence and three figures: looks, prompt, motion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline_lib.metrics import CATALOG, Difference, ScoredSample, paired_differences, summary
from pipeline_lib.metrics.aggregate import in_group
from pipeline_lib.report.tables import Change, change_in_words
from pipeline_lib.report.wording import number


@dataclass(frozen=True)
class Figure:
    """One headline number.

    Attributes:
        title: the question that it answers.
        metric: the metric's abbreviation.
        personalised: its mean, printed.
        base: the base's mean, printed; empty without.
        ceiling: the ceiling's mean, printed; empty where it has none, or where edits are among the samples: no edit
            should look just like the clip.
        change: personalised minus base, in words.
    """

    title: str
    metric: str
    personalised: str
    base: str
    ceiling: str
    change: Change


@dataclass(frozen=True)
class Verdict:
    """What the page opens with.

    Attributes:
        sentence: the run in one sentence.
        figures: the numbers that it rests on.
    """

    sentence: str
    figures: tuple[Figure, ...]


@dataclass(frozen=True)
class _Facet:
    metric: str
    title: str
    edits_only: bool
    better: str
    worse: str
    same: str
    leaning: tuple[str, str]


_FACETS = (
    _Facet(
        metric="clip_i",
        title="Looks like the subject",
        edits_only=False,
        better="looks more like the clip than the base does",
        worse="looks less like the clip than the base does",
        same="looks no more like the clip than the base does",
        leaning=("looks closer to the clip on average", "looks further from the clip on average"),
    ),
    _Facet(
        metric="clip_t_aggregated",
        title="Follows edit prompts",
        edits_only=True,
        better="follows edit prompts better",
        worse="follows edit prompts less well",
        same="follows edit prompts about as well",
        leaning=("follows edit prompts better on average", "follows edit prompts less well on average"),
    ),
    _Facet(
        metric="dynamic_degree_gap",
        title="Moves as much as the clip",
        edits_only=False,
        better="moves more like the clip",
        worse="moves less like the clip",
        same="moves no more like the clip",
        leaning=("moves more like the clip on average", "moves less like the clip on average"),
    ),
)


def verdict(samples: Sequence[ScoredSample], taught_from: str = "the clip") -> Verdict:
    """Compares the personalised model with the base on looks, prompt and motion.

    Args:
        samples: scored samples of all rows.
        taught_from: what the sentence calls the reference.

    Returns:
        A sentence and the figures that it rests on.

    Raises:
        InputError: a metric's scores come from different encoders.
    """
    figures, phrases, few = [], [], 0
    for facet in _FACETS:
        members = [s for s in in_group(samples, False) if s.row != "ceiling"] if facet.edits_only else list(samples)
        figure = _figure(facet, members)
        if figure is None:
            continue
        figures.append(figure)
        difference = paired_differences(members, "personalised", "base").get(facet.metric)
        if difference is not None:
            phrases.append(_phrase(facet, difference, figure.change))
            few = max(few, difference.num_pairs) if figure.change.state == "few" else few
    phrases = [phrase.replace("the clip", taught_from) for phrase in phrases]
    return Verdict(_sentence(phrases, few, scored=bool(figures)), tuple(figures))


def _figure(facet: _Facet, samples: Sequence[ScoredSample]) -> Figure | None:
    metric, table = CATALOG[facet.metric], summary(samples)

    def printed(row: str) -> str:
        cell = table.get(row, {}).get(facet.metric)
        return "" if cell is None or cell.mean is None else number(cell.mean, metric.decimals)

    if not printed("personalised"):
        return None
    difference = paired_differences(samples, "personalised", "base").get(facet.metric)
    return Figure(
        title=facet.title,
        metric=metric.short,
        personalised=printed("personalised"),
        base=printed("base"),
        ceiling="" if any(s.kind != "reconstruction" for s in samples) else printed("ceiling"),
        change=change_in_words(difference, metric.decimals),
    )


def _phrase(facet: _Facet, difference: Difference, change: Change) -> str:
    if change.state == "few":
        good = (difference.mean > 0) == (CATALOG[facet.metric].direction == "higher")
        return facet.leaning[0 if good else 1]
    return {"better": facet.better, "worse": facet.worse}.get(change.state, facet.same)


def _sentence(phrases: Sequence[str], few: int, *, scored: bool) -> str:
    if not phrases:
        return "Scored, but there is no base to compare with." if scored else "Not scored."
    told = phrases[0] if len(phrases) == 1 else f"{', '.join(phrases[:-1])} and {phrases[-1]}"
    luck = f"; {few} pairs of samples are too few to rule out luck" if few else ""
    return f"It {told}{luck}."
