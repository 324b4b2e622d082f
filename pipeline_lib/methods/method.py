"""What a method is: it plans torch-free stage specs, and builds a live stage from one.

The loop runs what a method builds and knows no method; methods do not know each other; only
`pipeline_lib.registry` names them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

from pipeline_lib.models.base import BaseModel
from pipeline_lib.models.lora_names import Layers
from pipeline_lib.records import Record, StageSpec
from pipeline_lib.training.data import PriorData, TrainingData
from pipeline_lib.training.encode import EncodingSettings
from pipeline_lib.training.stage import Stage
from pipeline_lib.training.text import TokenDropSettings


@dataclass(frozen=True, kw_only=True)
class StageInputs:
    """What a stage is built from.

    Attributes:
        data: the concept, encoded.
        prior: the prior set; None where the method asked for none.
        previous: result folder of the stage named by `StageSpec.after`; None for a first stage.
        seed: of the run.
        micro_batch: largest number of samples in one forward.
        start: LoRA layers that a first stage starts from, as
            :func:`pipeline_lib.models.lora_use.start_layers` reads them; empty: it starts from nothing.
    """

    data: TrainingData
    prior: PriorData | None
    previous: Path | None
    seed: int
    micro_batch: int
    start: Layers = field(default_factory=dict)


class PriorRequest(Record):
    """A prior set that a method wants sampled: how many clips, how their prompts are masked."""

    clips: int
    token_drop: float
    token_variants: int

    @property
    def drop(self) -> TokenDropSettings:
        """The same as settings of :func:`pipeline_lib.training.text.encode_texts`."""
        return TokenDropSettings(probability=self.token_drop, variants=self.token_variants)


class Method(Protocol):
    """One published method or baseline.

    Attributes:
        name: registry name.
        settings_type: pydantic record of everything a person may set; unknown keys are errors.
        presets: preset name to the settings that differ from the record's defaults.
    """

    name: ClassVar[str]
    settings_type: ClassVar[type[Record]]
    presets: ClassVar[Mapping[str, Mapping[str, Any]]]

    def plan(self, settings: Any, has_clips: bool) -> list[StageSpec]:
        """The stages in order. Settings that a stage does not use are no part of its spec.

        Args:
            settings: an instance of `settings_type`.
            has_clips: whether there is motion to learn: a clip, not only images.

        Returns:
            One spec for each stage.

        Raises:
            InputError: the method needs what the input has not.
        """

    def subject(self, settings: Any, base: BaseModel, class_noun: str) -> str:
        """The words that stand for the subject in prompts, class noun included."""

    def encoding(self, settings: Any, base: BaseModel, class_noun: str) -> EncodingSettings:
        """What has to be encoded before the first stage."""

    def prior(self, settings: Any) -> PriorRequest | None:
        """The prior set that the stages will ask for, if any."""

    def build(self, spec: StageSpec, base: BaseModel, inputs: StageInputs) -> Stage:
        """Attaches an adapter to the base and returns the live stage."""

    def finish(self, stage: Stage, folder: Path) -> dict[str, float]:
        """Writes the result: `triple.safetensors`, and what was trained beside it (`models.concept.Companions`).

        Args:
            stage: that was trained.
            folder: gets the files.

        Returns:
            Figures about the result, for the report.
        """

    def release(self, stage: Stage) -> None:
        """Takes the adapter off the base again."""
