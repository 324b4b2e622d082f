"""The two-stage approach of Set-and-Sequence without its regularisers (Abdal et al. 2025, Table 1 and section 8)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pipeline_lib.methods.baselines.settings import TWO_STAGE
from pipeline_lib.methods.two_stage_method import TwoStageMethod
from pipeline_lib.methods.two_stage_settings import UNREGULARISED, Regularisation, TwoStageSettings
from pipeline_lib.records import Record


class TwoStage(TwoStageMethod[TwoStageSettings]):
    """Implements :class:`pipeline_lib.methods.method.Method`: both stages, and nothing that regularises them."""

    name: ClassVar[str] = TWO_STAGE.name
    settings_type: ClassVar[type[Record]] = TWO_STAGE.settings_type
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = TWO_STAGE.presets

    def regularisation(self, settings: TwoStageSettings) -> Regularisation:  # noqa: ARG002 - one protocol
        """None of it."""
        return UNREGULARISED
