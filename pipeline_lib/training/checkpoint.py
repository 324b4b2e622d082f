"""One checkpoint of a stage: parameters, moments, step and history, in one file replaced atomically.

There is no generator state in it: draws are counted, not remembered.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn

from pipeline_lib.errors import ArtifactError, InputError
from pipeline_lib.records import StepRecord
from pipeline_lib.storage.tensors import read_tensors, save_tensors

FILE_NAME = "checkpoint.safetensors"
MOMENTS = ("exp_avg", "exp_avg_sq", "step")


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoint of one stage in a folder that outlives the process.

    Attributes:
        folder: of this stage alone.
        every: steps between two writes.
    """

    folder: Path
    every: int

    def save(
        self, parameters: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer, history: Sequence[StepRecord]
    ) -> None:
        """Replaces the checkpoint; `history` has one record per finished step."""
        tensors: dict[str, Tensor] = {}
        for name, parameter in parameters.items():
            tensors[f"{name}|parameter"] = parameter.detach().cpu()
            for moment in MOMENTS:
                if moment in optimizer.state[parameter]:
                    tensors[f"{name}|{moment}"] = optimizer.state[parameter][moment].detach().cpu()
        lines = "\n".join(record.model_dump_json() for record in history)
        save_tensors(self.folder / FILE_NAME, tensors, {"history": lines})

    def restore(self, parameters: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer) -> list[StepRecord]:
        """Puts the last checkpoint back.

        Args:
            parameters: name to parameter; their values are overwritten.
            optimizer: gets its moments back.

        Returns:
            The history so far, one record per finished step; empty where there is no checkpoint.

        Raises:
            ArtifactError: the checkpoint does not fit this stage; delete it to start again.
        """
        path = self.folder / FILE_NAME
        if not path.is_file():
            return []
        try:
            tensors, header = read_tensors(path)
            lines = header["history"].splitlines()
        except (InputError, KeyError) as error:
            raise ArtifactError(f"{path} is no checkpoint ({error}); delete it to start the stage again") from error
        stored = {name.rpartition("|")[0] for name in tensors}
        if stored != set(parameters):
            raise ArtifactError(f"{path} belongs to a stage with other parameters; delete it to start again")
        for name, parameter in parameters.items():
            with torch.no_grad():
                parameter.copy_(tensors[f"{name}|parameter"])
            optimizer.state[parameter] = _moments(tensors, name, parameter)
        return [StepRecord.model_validate_json(line) for line in lines]

    def latest_step(self) -> int:
        """How many steps the checkpoint holds, 0 where there is none; reads only the header."""
        path = self.folder / FILE_NAME
        if not path.is_file():
            return 0
        with safe_open(path, framework="pt") as file:
            return len((file.metadata() or {}).get("history", "").splitlines())


def _moments(tensors: dict[str, Tensor], name: str, parameter: nn.Parameter) -> dict[str, Tensor]:
    found = {moment: tensors[f"{name}|{moment}"] for moment in MOMENTS if f"{name}|{moment}" in tensors}
    return {moment: value.to(parameter.device) for moment, value in found.items()}


def as_json_lines(history: Sequence[StepRecord]) -> str:
    """A stage's curve, one step a line, without wall-clock: the same run gives the same bytes."""
    return "".join(json.dumps({"step": record.step, **record.metrics}, sort_keys=True) + "\n" for record in history)
