"""Numbers, durations and kinds in words."""

from __future__ import annotations

ROW_LABELS = {
    "chance": "Chance",
    "base": "Base",
    "lora": "Bare LoRA",
    "personalised": "Personalised",
    "ceiling": "Ceiling",
}
"""Rows of the table in their order; other rows come before the ceiling under their own name."""

KIND_LABELS = {
    "reconstruction": "Reconstruction",
    "local": "Local edit",
    "global": "Global edit",
    "user": "Your prompt",
}
DIRECTION_ARROWS = {"higher": "↑", "lower": "↓", "closer": "≈"}
DIRECTION_WORDS = {
    "higher": "higher is better",
    "lower": "lower is better",
    "closer": "closer to the clip's own is better",
}


def number(value: float, decimals: int) -> str:
    """A number with a true minus sign; zero has none."""
    text = f"{value:.{decimals}f}"
    if float(text) == 0:
        return text.lstrip("-")
    return text.replace("-", "−")


def signed(value: float, decimals: int) -> str:
    """A difference with its sign."""
    text = number(value, decimals)
    return text if text.startswith("−") or float(text) == 0 else f"+{text}"


def percent(share: float) -> str:
    """A share as `83 %`."""
    return f"{100 * share:.0f} %"


def duration(seconds: float) -> str:
    """`9 s`, `3 min 20 s`, `2 h 5 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s" if seconds >= 1 else f"{seconds:.1f} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def counted(count: int, noun: str) -> str:
    """`1 concept`, `8 concepts`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def plain_name(identifier: str) -> str:
    """`set_and_sequence` → `Set and sequence`."""
    words = identifier.replace("_", " ").replace("-", " ").strip()
    return words[:1].upper() + words[1:]
