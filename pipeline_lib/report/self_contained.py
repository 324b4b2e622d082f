"""Self-contained HTML pages: one file each that asks the network for nothing, and its own policy forbids it to."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup


def page_text(template: str, *, style: str = "", script: str = "", **values: Any) -> str:
    """A page as text, in the look that all pages share.

    Args:
        template: extends `frame.html`; what it is given is escaped, and nothing that it asks for may be missing.
        style: file of a style beyond the shared one.
        script: file of the only script that the page's policy lets run; empty: none may.
        **values: what the template is given.

    Returns:
        The page.
    """
    environment = _environment()
    own_script = _own_text(environment, script) if script else ""
    return environment.get_template(template).render(
        style=_style(environment, style),
        script=own_script,
        script_hash=base64.b64encode(hashlib.sha256(own_script.encode()).digest()).decode(),
        **values,
    )


def chart_text(chart: Markup, *, style: str = "") -> str:
    """A chart of a page as a file of its own, in the pages' look.

    Args:
        chart: an inline SVG element.
        style: file of a style beyond the shared one.

    Returns:
        An SVG file.
    """
    head, _, rest = str(chart).partition(">")
    look = f"<style>{_style(_environment(), style)}</style>"
    return f'{head} xmlns="http://www.w3.org/2000/svg">{look}{rest}\n'


def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("pipeline_lib.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip


def _style(environment: Environment, further: str) -> Markup:
    return Markup("\n").join(_own_text(environment, name) for name in ("style.css", further) if name)


def _own_text(environment: Environment, name: str) -> Markup:
    """A style or script of ours, which alone is not escaped."""
    assert environment.loader is not None
    return Markup(environment.loader.get_source(environment, name)[0].strip())  # noqa: S704
