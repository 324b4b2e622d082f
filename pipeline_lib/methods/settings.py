"""What a person may set of a method: free of torch, so that a mistake is named before any model is imported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple, Protocol

from pydantic import BeforeValidator, Field

from pipeline_lib.errors import ConfigError
from pipeline_lib.records import Record

Presets = Mapping[str, Mapping[str, Any]]


def _spelt(value: Any) -> Any:
    return ("on" if value else "off") if isinstance(value, bool) else value


SelfConditioningChoice = Annotated[Literal["auto", "on", "off"], BeforeValidator(_spelt)]  # YAML reads `on` as true

ESTIMATE_PROBABILITY = 0.5
"""Of a sample to see the model's own estimate, where self-conditioning is on (Chen et al. 2023)."""
FULL_MASK_SHARE = 0.05
"""Of samples whose whole picture counts although there are masks (Video Custom Diffusion)."""


class MethodSettings(NamedTuple):
    """The settings of one method.

    Attributes:
        name: registry name of the method.
        settings_type: pydantic record of everything a person may set; unknown keys are errors.
        presets: preset name to the settings that differ from the record's defaults.
    """

    name: str
    settings_type: type[Record]
    presets: Presets


class Configurable(Protocol):
    """What has settings and presets: a method itself, or its :class:`MethodSettings` alone."""

    @property
    def name(self) -> str:
        """Registry name of the method."""

    @property
    def settings_type(self) -> type[Record]:
        """See :class:`MethodSettings`."""

    @property
    def presets(self) -> Presets:
        """See :class:`MethodSettings`."""


class OptimizerValues(Record):
    """AdamW, with the defaults of Set-and-Sequence, Table 6.

    Attributes:
        learning_rate: of the adapter.
        decay: share of a stage's steps, the last ones, over which the rates fall linearly to zero.
        token_learning_rate: of learned words.
        betas: of AdamW.
        weight_decay: decoupled; none on learned words.
        max_gradient_norm: over all that learns.
    """

    learning_rate: float = Field(default=1e-4, gt=0)
    decay: float = Field(default=0.0, ge=0, le=1)
    token_learning_rate: float = Field(default=1e-5, gt=0)
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = Field(default=0.01, ge=0)
    max_gradient_norm: float = Field(default=0.05, gt=0)


def settings_from(method: Configurable, preset: str, overrides: Mapping[str, Any]) -> Any:
    """A method's settings from a preset and a person's own values.

    Args:
        method: whose settings.
        preset: name of one of its presets.
        overrides: a person's own values; they win, key by key inside sections too.

    Returns:
        An instance of the method's `settings_type`.

    Raises:
        ConfigError: no such preset.
        pydantic.ValidationError: an unknown key or a bad value; the caller names the place.
    """
    if preset not in method.presets:
        raise ConfigError(
            f"method {method.name} has no preset {preset!r}", expected="one of " + ", ".join(sorted(method.presets))
        )
    return method.settings_type.model_validate(laid_over(method.presets[preset], overrides))


def laid_over(ground: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with others over them, key by key inside sections too.

    Args:
        ground: sections within sections.
        values: win where both have a key.

    Returns:
        A new mapping; neither is changed.
    """
    merged = dict(ground)
    for key, value in values.items():
        inner = merged.get(key)
        if isinstance(inner, Mapping) and isinstance(value, Mapping):
            merged[key] = laid_over(inner, value)
        else:
            merged[key] = value
    return merged
