"""Names to implementations of those who look at clips: captioners and segmenters; the registry's other half.

Outsiders add their own through entry points: group `mannerism.captioners` (a callable without arguments
that returns a :class:`pipeline_lib.captions.captioner.Captioner`) and `mannerism.segmenters` (likewise a
:class:`pipeline_lib.masks.segmenter.Segmenter`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline_lib.errors import ConfigError
from pipeline_lib.registry import BASES, made, names_of, unknown_name
from pipeline_lib.run_config import RunConfig

if TYPE_CHECKING:
    from pipeline_lib.captions.captioner import Captioner
    from pipeline_lib.masks.segmenter import Segmenter

_CAPTIONER_GROUP, _SEGMENTER_GROUP = "mannerism.captioners", "mannerism.segmenters"
_CAPTIONERS = {"template": "pipeline_lib.captions.template:TemplateCaptioner"}
_SEGMENTERS: Mapping[str, str] = {}
_MODEL_CONFIG = "config.json"
# A base's own captioner is small and knows its own world only; of a clip from elsewhere it must not make up words.
_LEAST_CONFIDENCE = 0.9


def captioner_folder(config: RunConfig) -> Path | None:
    """The folder of a run's vision-language model; None where the captioner is a name.

    Args:
        config: its `concept.captioner`: "auto" is the base's own captioner where it brings one.

    Returns:
        The folder, if there is one.

    Raises:
        ConfigError: neither a known name nor a folder.
    """
    name = config.concept.captioner
    if name == "auto":
        named = BASES.get(config.base.source)
        return named.captioner if named and named.captioner and (named.captioner / _MODEL_CONFIG).is_file() else None
    known = names_of(_CAPTIONERS, _CAPTIONER_GROUP)
    if name in known:
        return None
    if not Path(name).expanduser().is_dir():
        raise unknown_name("concept.captioner", name, ["auto", *known], "or a folder of a vision-language model")
    return Path(name).expanduser()


def captioner_name(config: RunConfig) -> str:
    """The name of a run's captioner where it is no folder; "auto" without a captioner of the base's is the template."""
    return "template" if config.concept.captioner == "auto" else config.concept.captioner


def open_captioner(config: RunConfig, device: str = "cpu") -> Captioner:
    """The captioner of a run.

    Args:
        config: its `concept.captioner`: "auto", a name, built in or installed, or a model folder.
        device: where a model runs.

    Returns:
        The captioner, loaded; what a model leaves out comes from the template captioner.

    Raises:
        ConfigError: neither a known name nor a model folder.
    """
    folder = captioner_folder(config)
    captioner: Captioner
    if folder is None:
        captioner = made(captioner_name(config), _CAPTIONERS, _CAPTIONER_GROUP)
    else:
        from pipeline_lib.captions.vlm import VLMCaptioner

        least = _LEAST_CONFIDENCE if config.concept.captioner == "auto" else 0.0
        template = made("template", _CAPTIONERS, _CAPTIONER_GROUP)
        captioner = VLMCaptioner(folder, template, device=device, least_confidence=least)
    return captioner


def wants_masks(config: RunConfig) -> bool:
    """Whether the run's loss looks at the subject alone."""
    return config.mask.segmenter != "none"


def own_segmenter(config: RunConfig) -> Path | None:
    """The folder of the segmenter that a run's base brings; None where it brings none."""
    named = BASES.get(config.base.source)
    return named.segmenter if named and named.segmenter and (named.segmenter / _MODEL_CONFIG).is_file() else None


def scoring_segmenter(config: RunConfig) -> Path | None:
    """The folder of the segmenter that finds subjects in samples.

    Args:
        config: its `mask.segmenter`, where that is the folder of a model, else its base.

    Returns:
        The user's model, else the base's own; None where there is neither: given masks know the clip alone.

    Raises:
        ConfigError: as :func:`segmenter_path` raises it.
    """
    named = segmenter_path(config)
    return named if named and (named / _MODEL_CONFIG).is_file() else own_segmenter(config)


def segmenter_path(config: RunConfig) -> Path | None:
    """What a run's masks are read from or made with; None where that is a name.

    Args:
        config: its `mask.segmenter`: "auto" is the base's own segmenter.

    Returns:
        The folder of a model, or the user's own masks.

    Raises:
        ConfigError: the base brings no segmenter, or neither a known name nor a path.
    """
    name = config.mask.segmenter
    if name == "auto":
        own = own_segmenter(config)
        if own is None:
            raise ConfigError(
                f"mask.segmenter: the base {config.base.source} brings no segmenter",
                expected="the folder of a CLIPSeg model, or your own masks: a video, an image or a folder of images",
                fix="--set mask.segmenter=PATH",
            )
        return own
    known = names_of(_SEGMENTERS, _SEGMENTER_GROUP)
    if name == "none" or name in known:
        return None
    if not Path(name).expanduser().exists():
        raise unknown_name("mask.segmenter", name, ["none", "auto", *known], "or a CLIPSeg folder, or your own masks")
    return Path(name).expanduser()


def open_segmenter(config: RunConfig, device: str = "cpu") -> Segmenter:
    """The segmenter of a run that wants masks.

    Args:
        config: its `mask.segmenter`: "auto", a name, the folder of a CLIPSeg model, or the user's own masks.
        device: where a model runs.

    Returns:
        The segmenter, loaded.

    Raises:
        ConfigError: as :func:`segmenter_path` raises it.
        InputError: the folder's model cannot be loaded.
    """
    path = segmenter_path(config)
    segmenter: Segmenter
    if path is None:
        segmenter = made(config.mask.segmenter, _SEGMENTERS, _SEGMENTER_GROUP)
    elif (path / _MODEL_CONFIG).is_file():
        from pipeline_lib.masks.clipseg import ClipSegSegmenter

        segmenter = ClipSegSegmenter(path, device=device)
    else:
        from pipeline_lib.masks.given import GivenMasks

        segmenter = GivenMasks(path)
    return segmenter
