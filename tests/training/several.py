"""A stage in some processes, by the real step, on a store of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import torch
from safetensors.torch import load_file

from pipeline_lib.methods.set_and_sequence.method import SetAndSequence
from pipeline_lib.methods.set_and_sequence.settings import SetAndSequenceSettings
from pipeline_lib.models.concept import LORA_FILE
from pipeline_lib.records import ArtifactRef, StageSpec
from pipeline_lib.run_config import RunConfig
from pipeline_lib.steps.layout import LOSSES_FILE
from pipeline_lib.steps.shelf import ModelShelf
from pipeline_lib.steps.step import StepContext, StepResult
from pipeline_lib.steps.train import train
from pipeline_lib.storage import ArtifactStore
from pipeline_lib.training.data import PriorData, TrainingData

SETTINGS = SetAndSequenceSettings.model_validate(
    {
        "rank": 2,
        "batch": 3,
        "identity_steps": 6,
        "motion_steps": 6,
        "special_tokens": "encoder_output",
        "optimizer": {"learning_rate": 1e-2, "token_learning_rate": 1e-2, "decay": 0.5},
    }
)
IDENTITY, MOTION = SetAndSequence().plan(SETTINGS, has_clips=True)


class Bench(NamedTuple):
    """A store with the data in it, and the stages' inputs."""

    folder: Path
    base: Path
    inputs: dict[str, ArtifactRef]

    @staticmethod
    def made(folder: Path, base: Path, data: TrainingData, prior: PriorData) -> Bench:
        store = ArtifactStore(folder / "store")
        refs = {kind: store.build(kind, "0" * 64, part.save).ref for kind, part in (("data", data), ("prior", prior))}
        (folder / "refs.json").write_text(json.dumps({kind: ref.model_dump() for kind, ref in refs.items()}))
        return Bench.opened(folder, base)

    @staticmethod
    def opened(folder: Path, base: Path) -> Bench:
        stored = json.loads((folder / "refs.json").read_text())
        refs = {kind: ArtifactRef.model_validate(ref) for kind, ref in stored.items()}
        return Bench(folder, base, {**refs, "captions": refs["data"]})

    @property
    def store(self) -> ArtifactStore:
        return ArtifactStore(self.folder / "store")

    def train(self, spec: StageSpec, processes: int, **more: Any) -> StepResult:
        """In this process, and in so many less one further ones."""
        training = {"processes": processes, "checkpoint_every": 2, "device": "cpu"}
        config = RunConfig.model_validate({"base": {"source": str(self.base)}, "training": training, "seed": 5})
        return train(StepContext(config, self.store, ModelShelf(self.folder), **more), spec, self.inputs)

    def losses(self, result: StepResult) -> list[dict[str, float]]:
        lines = (self.store.folder(result.ref) / LOSSES_FILE).read_text().splitlines()
        return [json.loads(line) for line in lines]

    def lora(self, result: StepResult) -> dict[str, torch.Tensor]:
        return load_file(self.store.folder(result.ref) / LORA_FILE)


def others() -> list[psutil.Process]:
    """Further processes of a stage that this process has started; other tests may have left children of their own."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if "pipeline_lib.steps.train_rank" in process.cmdline():
                found.append(process)
        except psutil.Error:
            continue
    return found
