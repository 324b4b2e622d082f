"""Set-and-Sequence (Abdal et al. 2025): Stage I learns an identity basis, Stage II motion residuals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pipeline_lib.methods.set_and_sequence.settings import SETTINGS, SetAndSequenceSettings
from pipeline_lib.methods.two_stage_method import TwoStageMethod
from pipeline_lib.methods.two_stage_settings import Regularisation
from pipeline_lib.records import Record


class SetAndSequence(TwoStageMethod[SetAndSequenceSettings]):
    """Implements :class:`pipeline_lib.methods.method.Method`: both stages, regularised as the settings say."""

    name: ClassVar[str] = SETTINGS.name
    settings_type: ClassVar[type[Record]] = SETTINGS.settings_type
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = SETTINGS.presets

    def regularisation(self, settings: SetAndSequenceSettings) -> Regularisation:
        """The settings themselves hold it."""
        return settings
