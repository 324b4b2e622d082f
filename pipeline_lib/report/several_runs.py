"""What pages of several runs share, those of a batch and of a comparison: how they are headed, where they may lie."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from datetime import datetime
from typing import Self

from pipeline_lib.report.wording import duration


@dataclass(frozen=True, kw_only=True)
class SeveralRunsPage(ABC):
    """A page on several runs.

    Attributes:
        title: of the whole.
        created: when it ended.
        seconds: how long it took.
        verdict: how it went, in a sentence.
    """

    title: str
    created: datetime
    seconds: float
    verdict: str

    @property
    def time(self) -> str:
        """How long it took, printed; empty where that is not known."""
        return duration(self.seconds) if self.seconds > 0 else ""

    @abstractmethod
    def elsewhere(self) -> Self:
        """The same for another place, such as MLflow: without links to what lies beside it."""

    @abstractmethod
    def text(self) -> str:
        """The page.

        Returns:
            Its HTML.

        Raises:
            InputError: a picture is missing or none.
        """
