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
    environment = Environment(
        loader=PackageLoader("pipeline_lib.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    own_script = _own_text(environment, script) if script else ""
    return environment.get_template(template).render(
        style=Markup("\n").join(_own_text(environment, name) for name in ("style.css", style) if name),
        script=own_script,
        script_hash=base64.b64encode(hashlib.sha256(own_script.encode()).digest()).decode(),
        **values,
    )


def _own_text(environment: Environment, name: str) -> Markup:
    """A style or script of ours, which alone is not escaped."""
    assert environment.loader is not None
    return Markup(environment.loader.get_source(environment, name)[0].strip())  # noqa: S704
