"""Charts as inline SVG. Colours come from the page's style, so they follow light and dark."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from pipeline_lib.report.labels import Box, labels_apart
from pipeline_lib.report.wording import number

WIDTH, HEIGHT, SCATTER_HEIGHT = 520, 260, 340
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 14, 40
MOST_POINTS = 400
LEADER = 14
"""A label that is further than this from its dot has a line to it."""

Points = Sequence[tuple[float, float]]
"""(x, y) in order of x."""

_Place = Callable[[float, float], tuple[float, float]]


@dataclass(frozen=True)
class Series:
    """One line of a chart.

    Attributes:
        label: in the legend; empty keeps it out.
        style: `raw`, `smooth`, `validation` or `part`; a class of the page's style.
        points: what is drawn.
        dots: whether each point has a dot.
    """

    label: str
    style: str
    points: Points
    dots: bool = False


@dataclass(frozen=True)
class IntervalMark:
    """A mean with its interval.

    Attributes:
        style: a row's id; a class of the page's style.
        label: for people.
        mean: the dot.
        low: left end of the whisker; None without an interval.
        high: right end of the whisker.
    """

    style: str
    label: str
    mean: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Dot:
    """One point of a scatter chart, with its intervals.

    Attributes:
        style: a class of the page's style.
        label: beside it.
        x: place on the horizontal axis.
        y: place on the vertical axis.
        x_ends: interval of `x`; None without one.
        y_ends: interval of `y`; None without one.
    """

    style: str
    label: str
    x: float
    y: float
    x_ends: tuple[float, float] | None = None
    y_ends: tuple[float, float] | None = None


def smoothed(points: Points, share: float = 0.05) -> list[tuple[float, float]]:
    """Exponential mean, bias-corrected, over about `share` of the points."""
    rate = 1 / max(1.0, share * len(points))
    mean = weight = 0.0
    result = []
    for x, y in points:
        mean, weight = mean + rate * (y - mean), weight + rate * (1 - weight)
        result.append((x, mean / weight))
    return result


def line_chart(series: Sequence[Series], *, title: str, x_label: str) -> Markup:
    """A chart of one or more lines.

    The vertical range leaves out the wildest 2 % of raw points, which are drawn at the edge.

    Args:
        series: at least one with a point.
        title: read out by screen readers.
        x_label: under the axis.

    Returns:
        An inline SVG element.
    """
    series = [line for line in series if line.points]
    x_low, x_high = _range([x for line in series for x, _ in line.points], pad=0)
    y_low, y_high = _range([y for line in series for y in _calm(line)], pad=0.06)

    def place(x: float, y: float) -> tuple[float, float]:
        across = LEFT + (x - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT)
        share = min(max((y - y_low) / (y_high - y_low), 0.0), 1.0)
        return round(across, 1), round(HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM), 1)

    parts = [_y_axis(y_low, y_high, place), _x_axis(x_low, x_high, place, x_label)]
    for line in series:
        spots = [place(x, y) for x, y in _thinned(line.points)]
        path = Markup(" ").join(Markup("{},{}").format(x, y) for x, y in spots)
        parts.append(Markup('<polyline class="line {}" points="{}"/>').format(line.style, path))
        if line.dots:
            parts += [
                Markup('<circle class="dot {}" cx="{}" cy="{}" r="3"/>').format(line.style, *spot) for spot in spots
            ]
    head = Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">').format(WIDTH, HEIGHT, title)
    return head + Markup("").join(parts) + Markup("</svg>")


def scatter_chart(dots: Sequence[Dot], front: Points, *, title: str, x_label: str, y_label: str) -> Markup:
    """Labelled points with their intervals, and a line through those on the front.

    Args:
        dots: at least one.
        front: places that the line joins, in order of x.
        title: read out by screen readers.
        x_label: under the axis.
        y_label: above the axis.

    Returns:
        An inline SVG element.
    """
    x_low, x_high = _range([x for dot in dots for x in (dot.x, *(dot.x_ends or ()))], pad=0.08)
    y_low, y_high = _range([y for dot in dots for y in (dot.y, *(dot.y_ends or ()))], pad=0.08)
    top, tall = TOP + 14, SCATTER_HEIGHT

    def place(x: float, y: float) -> tuple[float, float]:
        across = LEFT + (x - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT)
        up = tall - BOTTOM - (y - y_low) / (y_high - y_low) * (tall - top - BOTTOM)
        return round(across, 1), round(up, 1)

    parts = [_y_axis(y_low, y_high, place), _x_axis(x_low, x_high, place, x_label, tall)]
    parts.append(Markup('<text class="tick" x="{}" y="{}">{}</text>').format(4, TOP, y_label))
    path = Markup(" ").join(Markup("{},{}").format(*place(x, y)) for x, y in front)
    parts.append(Markup('<polyline class="line front" points="{}"/>').format(path))
    bars = []
    for dot in dots:
        across, up = dot.x_ends or (dot.x, dot.x), dot.y_ends or (dot.y, dot.y)
        for ends in (((across[0], dot.y), (across[1], dot.y)), ((dot.x, up[0]), (dot.x, up[1]))):
            (x1, y1), (x2, y2) = (place(x, y) for x, y in ends)
            line = Markup('<line class="whisker thin {}" x1="{}" x2="{}" y1="{}" y2="{}"/>')
            parts.append(line.format(dot.style, x1, x2, y1, y2))
            bars.append(Box(x1 - 1, min(y1, y2) - 1, x2 + 1, max(y1, y2) + 1))
    parts += [
        Markup('<circle class="mean {}" cx="{}" cy="{}" r="4.5"/>').format(d.style, *place(d.x, d.y)) for d in dots
    ]
    spots = {dot.label: place(dot.x, dot.y) for dot in dots}
    for label, box in labels_apart(spots, bars, Box(LEFT, top, WIDTH, tall - BOTTOM)).items():
        x, y = spots[label]
        near = box.nearest(x, y)
        if math.dist((x, y), near) > LEADER:
            line = Markup('<line class="leader" x1="{}" y1="{}" x2="{:.1f}" y2="{:.1f}"/>')
            parts.append(line.format(x, y, *near))
        text = Markup('<text class="tick name" x="{:.1f}" y="{:.1f}">{}</text>')
        parts.append(text.format(box.left, box.bottom - 3, label))
    head = Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">').format(WIDTH, tall, title)
    return head + Markup("").join(parts) + Markup("</svg>")


def interval_chart(marks: Sequence[IntervalMark], decimals: int) -> Markup:
    """Means and intervals of several rows on one small axis."""
    width, lane, edge = 180, 11, 8
    height = lane * len(marks) + 5
    ends = [end for mark in marks for end in (mark.low, mark.mean, mark.high) if end is not None]
    low, high = _range(ends, pad=0.05)

    def place(value: float) -> float:
        return round(edge + (value - low) / (high - low) * (width - 2 * edge), 1)

    told = "; ".join(f"{mark.label} {number(mark.mean, decimals)}" for mark in marks)
    parts = [
        Markup('<svg class="intervals" viewBox="0 0 {} {}" role="img" aria-label="{}">').format(width, height, told)
    ]
    for index, mark in enumerate(marks):
        y = 8 + lane * index
        parts.append(Markup('<line class="lane" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(0, width, y, y))
        if mark.low is not None and mark.high is not None:
            parts.append(
                Markup('<line class="whisker {}" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(
                    mark.style, place(mark.low), place(mark.high), y, y
                )
            )
        parts.append(Markup('<circle class="mean {}" cx="{}" cy="{}" r="4"/>').format(mark.style, place(mark.mean), y))
    return Markup("").join([*parts, Markup("</svg>")])


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers inside [low, high]: steps of 1, 2 or 5 times a power of ten, at most `most` of them."""
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [round(index * step, 12) for index in range(first, math.floor(high / step + 1e-9) + 1)]


def _y_axis(low: float, high: float, place: _Place) -> Markup:
    parts = []
    for value in ticks(low, high):
        _, y = place(0, value)
        parts.append(
            Markup('<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(LEFT, WIDTH - RIGHT, y, y)
            + Markup('<text class="tick end" x="{}" y="{}">{}</text>').format(LEFT - 8, y + 4, _short(value))
        )
    return Markup("").join(parts)


def _x_axis(low: float, high: float, place: _Place, label: str, tall: int = HEIGHT) -> Markup:
    base = tall - BOTTOM
    parts = [Markup('<line class="axis" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(LEFT, WIDTH - RIGHT, base, base)]
    for value in ticks(low, high, 6):
        x, _ = place(value, 0)
        parts.append(Markup('<text class="tick middle" x="{}" y="{}">{}</text>').format(x, base + 17, _short(value)))
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(Markup('<text class="tick middle" x="{}" y="{}">{}</text>').format(middle, tall - 5, label))
    return Markup("").join(parts)


def _calm(line: Series) -> list[float]:
    values = sorted(y for _, y in line.points)
    if line.style != "raw" or len(values) < 50:
        return values
    cut = len(values) // 50
    return values[cut : len(values) - cut]


def _range(values: Sequence[float], pad: float) -> tuple[float, float]:
    low, high = min(values), max(values)
    if high - low <= 1e-12 * max(abs(low), abs(high), 1e-300):
        room = abs(high) * 0.1 or 0.5
        return low - room, high + room
    return low - pad * (high - low), high + pad * (high - low)


def _thinned(points: Points) -> Points:
    if len(points) <= MOST_POINTS:
        return points
    chosen = {round(index * (len(points) - 1) / (MOST_POINTS - 1)) for index in range(MOST_POINTS)}
    return [points[index] for index in sorted(chosen)]


def _short(value: float) -> str:
    return f"{value:.4g}".replace("-", "−")
