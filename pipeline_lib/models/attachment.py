"""What has been put on live modules and can be taken off again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


class Removable(Protocol):
    """A hook's handle, or several."""

    def remove(self) -> None:
        """Takes it off; a second time does nothing."""


@dataclass(frozen=True)
class Attachment:
    """Several handles as one."""

    handles: Sequence[Removable] = ()

    def remove(self) -> None:
        """Takes all of them off."""
        for handle in self.handles:
            handle.remove()
