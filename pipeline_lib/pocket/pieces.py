"""Training in pieces: a deadline, a checkpoint every few minutes, and a run that goes on."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn


def learning_rate_factor(step: int, total: int, warmup: int = 100, decay: float = 0.3) -> float:
    """Warm up, stay, then decay linearly to 2 % over the last part.

    Args:
        step: current step.
        total: steps of the whole training.
        warmup: steps of the linear rise.
        decay: share of the steps that decay.

    Returns:
        Factor of the peak rate, in (0, 1].
    """
    rise = min(1.0, (step + 1) / warmup)
    left = max(0.0, (total - step) / max(1.0, decay * total))
    return rise * max(0.02, min(1.0, left))


@dataclass
class Piece:
    """One piece of a resumable training.

    Attributes:
        folder: where the checkpoint and the log lie.
        name: name of the recipe; files are ``<name>.pt`` and ``<name>.jsonl``.
        minutes: length of this piece.
        save_minutes: time between checkpoints.
    """

    folder: Path
    name: str
    minutes: float
    save_minutes: float = 4.0
    _started: float = field(default_factory=time.monotonic)
    _saved: float = field(default_factory=time.monotonic)
    _stopped: bool = False

    def stop_on_terminate(self) -> None:
        """Make SIGTERM end the piece after the current step, with a checkpoint."""
        signal.signal(signal.SIGTERM, lambda _number, _frame: setattr(self, "_stopped", True))

    @property
    def over(self) -> bool:
        """Whether this piece has used its minutes or was told to stop."""
        return self._stopped or time.monotonic() - self._started > 60.0 * self.minutes

    @property
    def due(self) -> bool:
        """Whether a checkpoint should be written now."""
        return time.monotonic() - self._saved > 60.0 * self.save_minutes

    def load(self) -> dict[str, Any]:
        """Return the last checkpoint, or an empty mapping at the very start."""
        path = self.folder / f"{self.name}.pt"
        if not path.exists():
            return {}
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        return state

    def save(self, state: Mapping[str, Any]) -> None:
        """Write a checkpoint under a temporary name, then rename it.

        Args:
            state: what :meth:`load` returns in the next piece.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = self.folder / f"{self.name}.pt.partial"
        torch.save(dict(state), temporary)
        temporary.replace(self.folder / f"{self.name}.pt")
        self._saved = time.monotonic()

    def log(self, record: Mapping[str, float]) -> None:
        """Append one line to the log and print it.

        Args:
            record: numbers worth keeping.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        minutes = round((time.monotonic() - self._started) / 60.0, 2)
        line = json.dumps({"minutes": minutes, **{k: round(v, 5) for k, v in record.items()}})
        print(f"{self.name} {line}", flush=True)
        with (self.folder / f"{self.name}.jsonl").open("a") as stream:
            stream.write(line + "\n")


class Average:
    """Exponential moving average of a module's parameters, held in fp32.

    Args:
        module: the module that is trained.
        decay: weight of the past; it grows from 0 so that the start is forgotten.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.count = 0
        self.values = {name: value.detach().clone() for name, value in module.named_parameters()}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Move the average towards the module's parameters.

        Args:
            module: the same module as at the start.
        """
        self.count += 1
        decay = min(self.decay, (1 + self.count) / (10 + self.count))
        parameters = dict(module.named_parameters())
        names = list(self.values)
        torch._foreach_lerp_(
            [self.values[name] for name in names],
            [parameters[name].detach() for name in names],
            1.0 - decay,
        )

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds of the average."""
        return {"count": self.count, "values": self.values}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take over the average of a checkpoint.

        Args:
            state: from :meth:`state`.
        """
        self.count, self.values = int(state["count"]), dict(state["values"])
