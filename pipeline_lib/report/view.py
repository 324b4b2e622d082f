"""From inputs to what the templates print: tiles, prompt cards, encoders."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline_lib.metrics import CATALOG, ScoredSample
from pipeline_lib.records import Caption
from pipeline_lib.report.embed import Embedded, embed
from pipeline_lib.report.inputs import ReportClip, ReportInputs, ReportSample
from pipeline_lib.report.wording import KIND_LABELS, ROW_LABELS, number

_KIND_ORDER = ("reconstruction", "local", "global", "user")
_TILE_METRICS = (("identity_accuracy", "motion_fidelity", "edit_accuracy"), ("clip_i", "clip_t_aggregated"))
"""Under a sample stand those of the first group that has a value."""
_KIND_WORDS = {"video": "Clip", "images": "Picture"}


@dataclass(frozen=True)
class Tile:
    """One picture or video with what stands under it.

    Attributes:
        media: the embedded file; None where the page's script copies tile `copies`.
        copies: id of the tile whose media it shares.
        row: style: `reference`, `ceiling`, `base` or `personalised`.
        label: under the picture.
        alt: what is seen, for those who cannot see it.
        figures: short scores.
        id: for tiles that others copy.
    """

    media: Embedded | None
    row: str
    label: str
    alt: str
    figures: tuple[tuple[str, str], ...] = ()
    copies: str = ""
    id: str = ""


@dataclass(frozen=True)
class SeedPair:
    """The two models' videos of one prompt and seed."""

    seed: int
    tiles: tuple[Tile, ...]


@dataclass(frozen=True)
class PromptCard:
    """One prompt and all its videos.

    Attributes:
        before: prompt text before the subject.
        subject: the word in the subject's place; empty where the prompt has no `{subject}`.
        after: prompt text after it.
        filled: the prompt as the personalised model got it.
        negative: the negative prompt.
        kind: `reconstruction`, `local`, `global` or `user`.
        kind_label: in words.
        reference: the clip again.
        pairs: one per seed.
    """

    before: str
    subject: str
    after: str
    filled: str
    negative: str
    kind: str
    kind_label: str
    reference: Tile | None
    pairs: tuple[SeedPair, ...]


@dataclass(frozen=True)
class ClipView:
    """A clip, its reconstruction and its caption.

    Attributes:
        title: the clip's name.
        facts: size, frames, rate.
        tiles: pictures and videos.
        caption: label to text, empty parts left out.
        notes: what media did to it.
    """

    title: str
    facts: str
    tiles: tuple[Tile, ...]
    caption: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]


def clip_views(clips: Sequence[ReportClip], subject: str) -> list[ClipView]:
    """One view per clip."""
    return [_clip_view(clip, index, subject) for index, clip in enumerate(clips)]


def prompt_cards(inputs: ReportInputs) -> list[PromptCard]:
    """One card per prompt: reconstruction first, then local, global and user prompts."""
    scores = {(s.row, s.prompt, s.negative, s.seed): s for s in inputs.scores}
    prompts: dict[tuple[str, str], list[ReportSample]] = defaultdict(list)
    for sample in inputs.samples:
        prompts[sample.record.prompt.text, sample.record.prompt.negative].append(sample)
    cards = [_prompt_card(inputs, members, scores) for members in prompts.values()]
    return sorted(cards, key=lambda card: _KIND_ORDER.index(card.kind))


def opening_tiles(inputs: ReportInputs, clips: Sequence[ClipView], cards: Sequence[PromptCard]) -> list[Tile]:
    """The page's first row: the clip, the base's best try at it and ours."""
    tiles = [
        Tile(None, first.row, first.label, first.alt, copies=first.id) for view in clips[:1] for first in view.tiles[:1]
    ]
    pair = next((card.pairs[0] for card in cards if card.kind == "reconstruction" and card.pairs), None)
    pair = pair or next((card.pairs[0] for card in cards if card.pairs), None)
    for tile in pair.tiles if pair else ():
        what = "the base, before" if tile.row == "base" else f"{inputs.concept.name}, learned"
        tiles.append(Tile(None, tile.row, what, tile.alt, copies=tile.id))
    return tiles


def taught_from(clips: Sequence[ReportClip]) -> str:
    """What a sentence calls the reference."""
    videos = sum(clip.record.kind == "video" for clip in clips)
    if videos or not clips:
        return "the clips" if videos > 1 else "the clip"
    return "the pictures"


def encoder_lines(scores: Sequence[ScoredSample]) -> list[tuple[str, str]]:
    """Which encoder made which metrics."""
    made: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for sample in scores:
        for score in sample.scores:
            trace = (score.encoder, score.encoder_digest, score.preprocessing)
            if score.value is not None and score.encoder and CATALOG[score.metric].name not in made[trace]:
                made[trace].append(score.metric)
    return [
        (f"encoder of {', '.join(metrics)}", ", ".join(part for part in trace if part))
        for trace, metrics in made.items()
        if metrics
    ]


def _clip_view(clip: ReportClip, index: int, subject: str) -> ClipView:
    record = clip.record
    facts = f"{record.width} × {record.height}"
    if record.kind == "video":
        facts += f", {record.num_frames} frames at {record.frames_per_second:g} per second"
    else:
        facts += f", {record.num_frames} pictures"
    what = _KIND_WORDS[record.kind]
    tiles = [
        Tile(embed(file), "reference", what, f"{what} of {subject}: {record.name}", id=f"clip-{index}-{number}")
        for number, file in enumerate(clip.files)
    ]
    alt = f"{record.name} after the autoencoder"
    tiles += [Tile(embed(file), "ceiling", "Through the autoencoder", alt) for file in clip.reconstructions]
    caption = _caption_lines(clip.caption) if clip.caption else ()
    return ClipView(record.name, facts, tuple(tiles), caption, record.notes)


def _caption_lines(caption: Caption) -> tuple[tuple[str, str], ...]:
    fields = ("class_noun", "static", "motion", "camera", "background", "light")
    labels = ("Class", "Looks", "Motion", "Camera", "Background", "Light")
    pairs = ((label, str(getattr(caption, field))) for field, label in zip(fields, labels, strict=True))
    return tuple((label, text) for label, text in pairs if text)


def _prompt_card(
    inputs: ReportInputs, members: Sequence[ReportSample], scores: dict[tuple[str, str, str, int], ScoredSample]
) -> PromptCard:
    prompt = members[0].record.prompt
    before, marker, after = prompt.text.partition("{subject}")
    filled = next((m.record.filled_prompt for m in members if m.record.model == "personalised"), "")
    pairs = []
    for seed in dict.fromkeys(member.record.seed for member in members):
        chosen = sorted((m for m in members if m.record.seed == seed), key=lambda member: member.record.model)
        tiles = (_sample_tile(m, scores.get((m.record.model, prompt.text, prompt.negative, seed))) for m in chosen)
        pairs.append(SeedPair(seed, tuple(tiles)))
    reference = None
    if inputs.clips and inputs.clips[0].files:
        first = inputs.clips[0].record
        reference = Tile(None, "reference", _KIND_WORDS[first.kind], f"The reference: {first.name}", copies="clip-0-0")
    return PromptCard(
        before=before,
        subject=inputs.concept.class_noun if marker else "",
        after=after,
        filled=filled,
        negative=prompt.negative,
        kind=prompt.kind,
        kind_label=KIND_LABELS[prompt.kind],
        reference=reference,
        pairs=tuple(pairs),
    )


def _sample_tile(sample: ReportSample, scored: ScoredSample | None) -> Tile:
    record = sample.record
    label = ROW_LABELS[record.model]
    values = {score.metric: score.value for score in (scored.scores if scored else ()) if score.value is not None}
    shown = next((names for names in _TILE_METRICS if not values.keys().isdisjoint(names)), ())
    figures = [(CATALOG[name].short, number(values[name], 2)) for name in shown if name in values]
    alt = f"{label}, seed {record.seed}: {record.filled_prompt}"
    return Tile(embed(sample.file), record.model, label, alt, tuple(figures), id=f"{record.model}-{record.file}")
