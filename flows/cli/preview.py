"""`preview`: the frames, captions and prompts that would be trained on, before anything is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flows.cli.output import put, put_json
from pipeline_lib.run_config import RunConfig
from pipeline_lib.steps.state import StateFolder


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
        for stage, prompt in clip["prompts"].items():
            put(f"  {stage:12} {prompt}")
    for stage in facts["stages"]:
        put(f"stage {stage['name']}: {stage['steps']} steps on {stage['data']}")
    put(f"masks: {facts['masks']}")
    put("samples:")
    for prompt in facts["samples"]:
        put(f"  {prompt}")
    put(f"contact sheet: {out}")


def _facts(config: RunConfig, out: Path) -> dict[str, Any]:
    from pipeline_lib.media.sheet import contact_sheet
    from pipeline_lib.steps.caption import caption, load_captions
    from pipeline_lib.steps.encode import encoding_settings
    from pipeline_lib.steps.generate import filled, planned_prompts
    from pipeline_lib.steps.plan import plan
    from pipeline_lib.steps.prepare import load_clips, prepare
    from pipeline_lib.steps.shelf import ModelShelf
    from pipeline_lib.steps.step import StepContext

    state = StateFolder.open()
    context = StepContext(config, state.store, ModelShelf(state.locks))
    clips_ref = prepare(context).ref
    clips = load_clips(context.store, clips_ref)
    captions = load_captions(context.store, caption(context, clips_ref).ref)
    wanted = encoding_settings(context, captions[0].class_noun)
    planned = plan(context, clips_ref)
    contact_sheet([(clip.record.name, clip.frames) for clip in clips], out)
    return {
        "clips": [
            {
                **clip.record.model_dump(mode="json"),
                "prompts": {
                    "frames": spoken.static_prompt(wanted.subject),
                    "clips": spoken.full_prompt(wanted.subject),
                },
            }
            for clip, spoken in zip(clips, captions, strict=True)
        ],
        "stages": [spec.model_dump(mode="json") for spec in planned.stages],
        "notes": planned.notes,
        "masks": "none: this method trains on whole frames",
        "samples": [filled(context, prompt, captions[0]) for prompt in planned_prompts(config, captions[0])],
        "contact_sheet": str(out),
    }
