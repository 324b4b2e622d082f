"""Mannerism: teach a video model a subject, how it looks and how it moves, from one clip.

::

    from pipeline_lib import load_concept, personalize
    result = personalize("clip.mp4", subject="grey wolf")
    load_concept(pipeline, result.concept)
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

# The function has to be bound here, after its module of the same name, or the module would shadow it.
from pipeline_lib.personalize import personalize as personalize

if TYPE_CHECKING:
    from pipeline_lib.models.concept import load_concept as load_concept

    __version__: str
__all__ = ["__version__", "load_concept", "personalize"]

# diffusers imports bitsandbytes where it is installed, which looks for kernels of a model hub and tells that it found
# none: here, since whatever imports diffusers in this library comes this way first.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


def __getattr__(name: str) -> Any:
    if name == "load_concept":  # imports torch
        from pipeline_lib.models.concept import load_concept

        return load_concept
    if name == "__version__":
        from importlib.metadata import version

        return version("mannerism")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
