"""Contact sheets: labelled rows of frames in one picture."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

_GAP = 4
_MARGIN = 12
_LABEL_WIDTH = 220
_FONT_SIZE = 15
_INK, _PAPER = (32, 36, 44), (255, 255, 255)

Row = tuple[str, NDArray[np.uint8]]


def contact_sheet(rows: Sequence[Row], path: Path, *, columns: int = 8, scale: int = 2) -> Path:
    """Writes a PNG with one labelled row of frames per clip.

    Args:
        rows: label and frames (frames, height, width, 3) uint8; sizes may differ between rows. Of a
            longer clip, `columns` frames spread evenly from first to last are shown.
        path: of the PNG; its folder is made.
        columns: most frames in a row.
        scale: whole factor by which frames are enlarged, without smoothing.

    Returns:
        The path.
    """
    assert rows, "a contact sheet needs at least one row"
    font = ImageFont.load_default(_FONT_SIZE)
    strips = [_strip(frames, columns, scale) for _, frames in rows]
    labels = [_wrapped(label, font) for label, _ in rows]
    line_height = _FONT_SIZE + 5
    heights = [
        max(strip.height, label.count("\n") * line_height + line_height)
        for strip, label in zip(strips, labels, strict=True)
    ]
    width = 2 * _MARGIN + _LABEL_WIDTH + max(strip.width for strip in strips)
    sheet = Image.new("RGB", (width, 2 * _MARGIN + sum(heights) + _GAP * 2 * (len(rows) - 1)), _PAPER)
    draw, top = ImageDraw.Draw(sheet), _MARGIN
    for strip, label, height in zip(strips, labels, heights, strict=True):
        text_height = label.count("\n") * line_height + line_height
        draw.multiline_text((_MARGIN, top + (height - text_height) // 2), label, _INK, font, spacing=5)
        sheet.paste(strip, (_MARGIN + _LABEL_WIDTH, top))
        top += height + 2 * _GAP
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    sheet.save(temporary, format="PNG")
    temporary.replace(path)
    return path


def _strip(frames: NDArray[np.uint8], columns: int, scale: int) -> Image.Image:
    picks = np.linspace(0, len(frames) - 1, min(columns, len(frames))).round().astype(int)
    height, width = frames.shape[1] * scale, frames.shape[2] * scale
    strip = Image.new("RGB", (len(picks) * (width + _GAP) - _GAP, height), _PAPER)
    for column, pick in enumerate(picks):
        large = frames[pick].repeat(scale, axis=0).repeat(scale, axis=1)
        strip.paste(Image.fromarray(large), (column * (width + _GAP), 0))
    return strip


def _wrapped(label: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """Breaks a label so that no line is wider than the label column."""
    for characters in range(40, 7, -1):
        text = "\n".join(
            line for part in label.splitlines() or [""] for line in (textwrap.wrap(part, characters) or [""])
        )
        if max(font.getlength(line) for line in text.split("\n")) <= _LABEL_WIDTH - _MARGIN:
            return text
    return text
