"""A page on which a person says which of two videos is better, without being told what made them.

The page holds no names of methods, not even hidden ones: who stands where is in a key that lies elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from markupsafe import Markup

from pipeline_lib.report.embed import embed
from pipeline_lib.report.self_contained import page_text
from pipeline_lib.storage.files import write_atomic


@dataclass(frozen=True)
class BlindPair:
    """Two videos that were asked for the same.

    Attributes:
        id: names the pair in the answers.
        prompt: what both were asked for.
        reference: a key of the page's videos: what was learned from; empty: there is no clip of it.
        left: a key of the page's videos.
        right: likewise.
    """

    id: str
    prompt: str
    reference: str
    left: str
    right: str


def write_blind_page(path: Path, title: str, pairs: Sequence[BlindPair], videos: Mapping[str, Path]) -> Path:
    """Writes the page; each video is in it once.

    Args:
        path: of the `.html` file; its folder is there.
        title: names the comparison in the answers.
        pairs: in the order in which they are asked.
        videos: files by their key.

    Returns:
        `path`.

    Raises:
        InputError: a video is missing or of the wrong type.
        ResourceError: the disk is full.
    """
    media = {key: embed(file).uri for key, file in videos.items()}
    data = json.dumps({"comparison": title, "pairs": [asdict(pair) for pair in pairs], "videos": media})
    page = page_text(
        "blind.html",
        style="blind.css",
        script="blind.js",
        count=len(pairs),
        data=Markup(data.replace("<", "\\u003c")),  # noqa: S704 - JSON without a tag
    )
    write_atomic(path, page)
    return path
