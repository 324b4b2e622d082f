"""The run in one sentence and a few figures: looks, motion, edits; each on its own group of prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline_lib.metrics import CATALOG, Difference, ScoredSample, Summary, paired_differences, summary
from pipeline_lib.metrics.aggregate import in_group
from pipeline_lib.report.tables import Change, change_in_words
from pipeline_lib.report.wording import DIRECTION_WORDS, number


@dataclass(frozen=True)
class Figure:
    """One headline number.

    Attributes:
        title: the question that it answers.
        metric: the metric's abbreviation.
        group: which samples it is the mean over, in words.
        reading: how the number is to be read.
        personalised: its mean, printed.
        beside: the other rows that have a mean, and it, printed. No ceiling where edits are compared with the clip:
            no edit should look just like it.
        change: personalised minus base, in words.
    """

    title: str
    metric: str
    group: str
    reading: str
    personalised: str
    beside: tuple[tuple[str, str], ...]
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
    """One question to one metric on one group of prompts, and what its answers are called."""

    metric: str
    title: str
    rebuilt: bool
    better: str
    worse: str
    same: str
    leaning: tuple[str, str]


_LIKE_THE_CLIP = (
    _Facet(
        metric="clip_i",
        title="Looks like the subject",
        rebuilt=True,
        better="looks more like the clip than the base does",
        worse="looks less like the clip than the base does",
        same="looks no more like the clip than the base does",
        leaning=("looks closer to the clip on average", "looks further from the clip on average"),
    ),
    _Facet(
        metric="dynamic_degree_gap",
        title="Moves as much as the clip",
        rebuilt=True,
        better="moves more like the clip",
        worse="moves less like the clip",
        same="moves no more like the clip",
        leaning=("moves more like the clip on average", "moves less like the clip on average"),
    ),
    _Facet(
        metric="clip_i",
        title="Looks like it in edits",
        rebuilt=False,
        better="stays more like the clip in edits",
        worse="stays less like the clip in edits",
        same="stays no more like the clip in edits",
        leaning=("stays closer to the clip in edits on average", "strays further from the clip in edits on average"),
    ),
    _Facet(
        metric="clip_t_aggregated",
        title="Follows edit prompts",
        rebuilt=False,
        better="follows edit prompts better",
        worse="follows edit prompts less well",
        same="follows edit prompts about as well",
        leaning=("follows edit prompts better on average", "follows edit prompts less well on average"),
    ),
)
_TRUTH = (
    _Facet(
        metric="identity_accuracy",
        title="Is the subject",
        rebuilt=True,
        better="shows the subject in more frames than the base does",
        worse="shows the subject in fewer frames than the base does",
        same="shows the subject in no more frames than the base does",
        leaning=("shows the subject in more frames on average", "shows the subject in fewer frames on average"),
    ),
    _Facet(
        metric="motion_fidelity",
        title="Moves like it",
        rebuilt=True,
        better="moves it more as in the clip",
        worse="moves it less as in the clip",
        same="moves it no more as in the clip",
        leaning=("moves it more as in the clip on average", "moves it less as in the clip on average"),
    ),
    _Facet(
        metric="identity_accuracy",
        title="Is it in edits too",
        rebuilt=False,
        better="keeps it in more frames of edits",
        worse="keeps it in fewer frames of edits",
        same="keeps it in no more frames of edits",
        leaning=("keeps it in more frames of edits on average", "keeps it in fewer frames of edits on average"),
    ),
    _Facet(
        metric="edit_accuracy",
        title="Shows the edits",
        rebuilt=False,
        better="shows more of what edits ask for",
        worse="shows less of what edits ask for",
        same="shows no more of what edits ask for",
        leaning=("shows more of what edits ask for on average", "shows less of what edits ask for on average"),
    ),
)
_BESIDE = ("base", "ceiling", "chance")


def verdict(samples: Sequence[ScoredSample], taught_from: str = "the clip") -> Verdict:
    """Compares the personalised model with the base on looks, motion and edits.

    Where the truth was read, it alone speaks; else what can be measured against the reference does.

    Args:
        samples: scored samples of all rows.
        taught_from: what the sentence calls the reference.

    Returns:
        A sentence and the figures that it rests on.

    Raises:
        InputError: a metric's scores come from different encoders.
    """
    groups = {rebuilt: in_group(samples, rebuilt) for rebuilt in (True, False)}
    tables = {rebuilt: summary(members) for rebuilt, members in groups.items()}
    changes = {rebuilt: paired_differences(members, "personalised", "base") for rebuilt, members in groups.items()}
    figures, phrases, few = [], [], []
    for facet in _TRUTH if truth_known(samples) else _LIKE_THE_CLIP:
        difference = changes[facet.rebuilt].get(facet.metric)
        change = change_in_words(difference, CATALOG[facet.metric].decimals)
        figure = _figure(facet, tables[facet.rebuilt], change)
        if figure is None:
            continue
        figures.append(figure)
        if difference is not None:
            phrases.append(_phrase(facet, difference, change).replace("the clip", taught_from))
            few += [difference.num_pairs] if change.state == "few" else []
    return Verdict(_sentence(phrases, few, scored=bool(figures)), tuple(figures))


def truth_known(samples: Sequence[ScoredSample]) -> bool:
    """Whether the truth of any personalised sample was read."""
    return any(
        score.value is not None and CATALOG[score.metric].source == "truth"
        for sample in samples
        if sample.row == "personalised"
        for score in sample.scores
    )


def asked_for_seen(samples: Sequence[ScoredSample]) -> bool:
    """Whether encoders, too, scored the clips that edit prompts ask for."""
    return any(
        score.value is not None and CATALOG[score.metric].source != "truth"
        for sample in samples
        if sample.row == "ceiling" and sample.kind != "reconstruction"
        for score in sample.scores
    )


def _figure(facet: _Facet, table: dict[str, dict[str, Summary]], change: Change) -> Figure | None:
    metric = CATALOG[facet.metric]
    cells = {row: found[facet.metric] for row, found in table.items() if facet.metric in found}
    means = {row: number(cell.mean, metric.decimals) for row, cell in cells.items() if cell.mean is not None}
    if "personalised" not in means:
        return None
    if not facet.rebuilt and metric.source != "truth":
        means.pop("ceiling", None)
    count = cells["personalised"].num_samples
    return Figure(
        title=facet.title,
        metric=metric.short,
        group=f"{'reconstruction' if facet.rebuilt else 'edits'}, {count} {'sample' if count == 1 else 'samples'}",
        reading=f"{metric.meaning} {DIRECTION_WORDS[metric.direction].capitalize()}.",
        personalised=means["personalised"],
        beside=tuple((row, means[row]) for row in _BESIDE if row in means),
        change=change,
    )


def _phrase(facet: _Facet, difference: Difference, change: Change) -> str:
    if change.state == "few" and abs(difference.mean) < 0.5 * 10 ** -CATALOG[facet.metric].decimals:
        return facet.same
    if change.state == "few":
        good = (difference.mean > 0) == (CATALOG[facet.metric].direction == "higher")
        return facet.leaning[0 if good else 1]
    return {"better": facet.better, "worse": facet.worse}.get(change.state, facet.same)


def _sentence(phrases: Sequence[str], few: Sequence[int], *, scored: bool) -> str:
    if not phrases:
        return "Scored, but there is no base to compare with." if scored else "Not scored."
    told = phrases[0] if len(phrases) == 1 else f"{', '.join(phrases[:-1])} and {phrases[-1]}"
    if not few:
        return f"It {told}."
    pairs = "one pair of samples" if max(few) == 1 else f"{max(few)} pairs of samples"
    if len(few) < len(phrases):
        return f"It {told}; what is said on average rests on {pairs}, too few to rule out luck."
    return f"It {told}; {pairs} {'is' if max(few) == 1 else 'are'} too few to rule out luck."
