"""`preview`: the frames, masks, captions and prompts that would be trained on, before anything is trained."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from flows.cli.output import put, put_json
from pipeline_lib.run_config import RunConfig
from pipeline_lib.steps.check import check_config
from pipeline_lib.steps.state import StateFolder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pipeline_lib.masks.track import MaskTrack
    from pipeline_lib.media.clip import Clip
    from pipeline_lib.records import ArtifactRef
    from pipeline_lib.steps.step import StepContext
    from pipeline_lib.training.encode import EncodingSettings


def preview_config(config: RunConfig, out: Path, *, as_json: bool) -> None:
    """Prepares and captions in this process, and shows what came out."""
    facts = _facts(config, out)
    if as_json:
        put_json(facts)
        return
    for clip in facts["clips"]:
        put(f"{clip['name']}: {clip['kind']}, {clip['num_frames']} frames of {clip['width']}x{clip['height']}")
        for note in clip["notes"]:
            put(f"  note         {note}")
        put(f"  frames       {_listed(clip['trained_frames'])}")
        if clip["crops"]:
            put(f"  crops        {clip['crops']} of these frames")
        put(f"  windows from {_listed(clip['window_starts'])}")
        for stage, prompt in clip["prompts"].items():
            put(f"  {stage:12} {prompt}")
    for stage in facts["stages"]:
        put(f"stage {stage['name']}: {stage['steps']} steps on {stage['data']}")
    put(f"masks: {facts['masks']}")
    put("samples:")
    for prompt in facts["samples"]:
        put(f"  {prompt}")
    for note in facts["notes"]:
        put(f"note: {note}")
    put(f"contact sheet: {out}")


def _facts(config: RunConfig, out: Path) -> dict[str, Any]:
    check_config(config)
    state = StateFolder.open()
    state.make()
    # Only now, since they take seconds.
    from pipeline_lib.media.sheet import contact_sheet
    from pipeline_lib.steps.caption import caption, load_captions
    from pipeline_lib.steps.encode import encoding_settings
    from pipeline_lib.steps.generate import planned_prompts, wording
    from pipeline_lib.steps.plan import plan
    from pipeline_lib.steps.prepare import load_clips, prepare
    from pipeline_lib.steps.shelf import ModelShelf
    from pipeline_lib.steps.step import StepContext
    from pipeline_lib.training.encode import training_prompts

    context = StepContext(config, state.store, ModelShelf(state.locks))
    prepared = prepare(context)
    clips = load_clips(context.store, prepared.ref)
    described = caption(context, prepared.ref)
    captions = load_captions(context.store, described.ref)
    wanted = encoding_settings(context, captions[0].class_noun)
    planned = plan(context, prepared.ref)
    static, full = training_prompts(captions, wanted)
    tracks, masks, mask_notes = _masks(context, prepared.ref)
    chosen = _chosen(clips, tracks, wanted.num_frames, context.base.spec.frame_rules.num_frames)
    rows = [row for clip, part in zip(clips, chosen, strict=True) for row in _rows(clip, part)]
    crops = _crops(clips, tracks, chosen, wanted)
    rows += [*_crop_rows(clips, crops), *_mask_rows(clips, tracks)]
    contact_sheet(rows, out, columns=min(24, max(8, *(len(part.trained_frames) for part in chosen))))
    words = wording(context, captions, planned.stages[-1].settings.get("words", ()))
    prompts, notes = planned_prompts(config, captions[0])
    return {
        "clips": [
            {
                **clip.record.model_dump(mode="json"),
                **part._asdict(),
                "crops": len(shown),
                "prompts": {"frames": still, "clips": moving},
            }
            for clip, part, shown, still, moving in zip(clips, chosen, crops, static, full, strict=True)
        ],
        "stages": [spec.model_dump(mode="json") for spec in planned.stages],
        "notes": [*planned.notes, *described.notes, *mask_notes, *notes],
        "masks": masks,
        "samples": [words.fill(prompt.text) for prompt in prompts],
        "contact_sheet": str(out),
    }


class _Chosen(NamedTuple):
    """What of one clip is trained on: frame numbers, numbers of the windows' first frames, their length."""

    trained_frames: list[int]
    held_out_frames: list[int]
    window_starts: list[int]
    window_frames: int


def _chosen(clips: list[Clip], tracks: list[MaskTrack], num_frames: int, window: int) -> list[_Chosen]:
    from pipeline_lib.training.encode import choose_frames, window_starts

    empty = {(index, frame) for index, track in enumerate(tracks) for frame in track.empty_frames()}
    used, spare = choose_frames([len(clip.frames) for clip in clips], num_frames, empty)
    return [
        _Chosen(
            trained_frames=[at for source, at in used if source == index],
            held_out_frames=[at for source, at in spare if source == index],
            window_starts=window_starts(len(clip.frames), window, {frame for owner, frame in empty if owner == index})
            if clip.record.kind == "video"
            else [],
            window_frames=window,
        )
        for index, clip in enumerate(clips)
    ]


def _rows(clip: Clip, part: _Chosen) -> list[tuple[str, NDArray[np.uint8]]]:
    name, rows = clip.record.name, []
    if part.trained_frames:
        rows.append((f"{name}: the set of frames", clip.frames[part.trained_frames]))
    for start in part.window_starts:
        stop = start + part.window_frames
        rows.append((f"{name}: frames {start}-{stop - 1} in order", clip.frames[start:stop]))
    return rows


def _crops(
    clips: list[Clip], tracks: list[MaskTrack], chosen: list[_Chosen], wanted: EncodingSettings
) -> list[list[NDArray[np.uint8]]]:
    """The random crops beside the set of frames, of each clip."""
    from pipeline_lib.training.encode import choose_crops

    places = [(source, at) for source, part in enumerate(chosen) for at in part.trained_frames]
    drawn = choose_crops(places, clips, wanted, tracks or None)
    return [
        [crop.frame(clip.frames[at]) for source, at, crop in drawn if source == index]
        for index, clip in enumerate(clips)
    ]


def _crop_rows(clips: list[Clip], crops: list[list[NDArray[np.uint8]]]) -> list[tuple[str, NDArray[np.uint8]]]:
    import numpy as np

    pairs = zip(clips, crops, strict=True)
    return [(f"{clip.record.name}: crops of the set", np.stack(shown)) for clip, shown in pairs if shown]


def _masks(context: StepContext, clips: ArtifactRef) -> tuple[list[MaskTrack], str, tuple[str, ...]]:
    """The masks of all clips, or none; what to tell of them; notes."""
    from pipeline_lib.observers import wants_masks
    from pipeline_lib.steps.mask import load_masks, mask, mask_words

    if not wants_masks(context.config):
        return [], "none: training looks at whole frames", ()
    made = mask(context, clips)
    words, figures = mask_words(context.config), made.figures
    count, empty, area = (figures[name] for name in ("frames", "empty_frames", "mean_area"))
    told = f"{words!r} found in {count - empty:.0f} of {count:.0f} frames, {area:.0%} of the picture"
    return load_masks(context.store, made.ref), told, made.notes


def _mask_rows(clips: list[Clip], tracks: list[MaskTrack]) -> list[tuple[str, NDArray[np.uint8]]]:
    from pipeline_lib.steps.mask import masked_frames

    pairs = zip(clips[: len(tracks)], tracks, strict=True)
    return [(f"{clip.record.name}: what the loss looks at", masked_frames(clip, track)) for clip, track in pairs]


def _listed(numbers: list[int]) -> str:
    return " ".join(map(str, numbers)) or "none"
