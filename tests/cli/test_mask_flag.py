"""`--mask` on the command line: refused where nothing can make masks, shown by `preview` where something can."""

from __future__ import annotations

import json
from pathlib import Path

from pipeline_lib.media.write import write_video
from pipeline_lib.pocket.world_settings import FPS
from pipeline_lib.world.gizmos import gizmo
from pipeline_lib.world.render import render
from tests.cli.test_bad_input import command, state
from tests.steps.tiny import small_clip

__all__ = ["state"]


def test_a_base_without_a_segmenter_is_refused(state: Path, tiny_folder: Path, tmp_path: Path) -> None:
    clip = small_clip(tmp_path / "clip.mp4")
    ended = command("run", str(clip), "--subject", "dog", "--base", str(tiny_folder), "--mask")
    assert ended.code == 2
    assert "brings no segmenter" in ended.errors and "mask.segmenter=PATH" in ended.errors


def test_preview_shows_masks_and_the_captioners_words(state: Path, tmp_path: Path) -> None:
    clip = write_video(render(gizmo(4).reference).frames, tmp_path / "gizmo.mp4", FPS)
    sheet = tmp_path / "sheet.png"
    ended = command("preview", str(clip), "--subject", "creature", "--mask", "--out", str(sheet), "--json")
    assert ended.code == 0, ended.errors
    shown = json.loads(ended.output)
    assert shown["masks"].startswith("'creature' found in 13 of 13 frames")
    assert shown["clips"][0]["prompts"]["frames"].startswith("a ")
    assert sheet.stat().st_size > 10_000
