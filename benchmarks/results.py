"""Sections of RESULTS.md that a benchmark writes itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline_lib.storage import write_atomic

RESULTS = Path(__file__).with_name("RESULTS.md")


def put_section(path: Path, title: str, lines: Sequence[str]) -> None:
    """Replaces the section of this title, or adds it before the last one.

    Args:
        path: a Markdown file whose sections start with `## `.
        title: of the section.
        lines: below the title.
    """
    head, *sections = path.read_text(encoding="utf-8").split("\n## ")
    made = "\n".join([title, "", *lines, ""])
    titles = [text.partition("\n")[0] for text in sections]
    if title in titles:
        sections[titles.index(title)] = made
    else:
        sections.insert(max(0, len(sections) - 1), made)
    text = "\n## ".join([head, *sections])
    write_atomic(path, text if text.endswith("\n") else text + "\n")
