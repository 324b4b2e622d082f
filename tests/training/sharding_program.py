"""One process of two that train a stage on a base in parts; writes its curve, its updates and the bytes it holds."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from pipeline_lib.methods.method import StageInputs
from pipeline_lib.methods.set_and_sequence.method import SetAndSequence
from pipeline_lib.models.load import load_base
from pipeline_lib.records import StepRecord
from pipeline_lib.training.checkpoint import Checkpoints
from pipeline_lib.training.data import PriorData, TrainingData
from pipeline_lib.training.loop import run_stage
from pipeline_lib.training.ranks import ALONE, Ranks, joined
from pipeline_lib.training.sharding import bytes_held, shard
from pipeline_lib.training.stage import Stage
from tests.training.several import IDENTITY, MOTION

METHOD = SetAndSequence()


def stage_of(folder: Path, number: int, previous: Path | None) -> Stage:
    base = load_base(str(folder / "base"))
    base.set_gradient_checkpointing(number == 1)
    data, prior = TrainingData.load(folder / "data"), PriorData.load(folder / "prior")
    inputs = StageInputs(data=data, prior=prior, previous=previous, seed=5, micro_batch=2)
    return METHOD.build((IDENTITY, MOTION)[number], base, inputs)


def main(folder: Path, ranks: Ranks) -> None:
    """Both stages; the second one starts from what one process made of the first."""
    torch.set_num_threads(1)
    own = folder / f"{ranks.rank}-of-{ranks.count}"
    for number, previous in enumerate((None, folder / "0-of-1" / "0")):
        stage = stage_of(folder, number, previous)
        result = own / str(number)
        result.mkdir(parents=True)
        if ranks.count == 1:
            told, held = trained(stage, result, ALONE), bytes_held(stage)
        else:
            with joined(ranks, folder / f"meeting-{number}", stage.base.device):
                told = trained(stage, result, shard(stage, ranks))
                held = bytes_held(stage)
        METHOD.finish(stage, result)
        METHOD.release(stage)
        curve = [dict(record.metrics) for record in told]
        (result / "found.json").write_text(json.dumps({"curve": curve, "held": held}))


def trained(stage: Stage, folder: Path, ranks: Ranks) -> list[StepRecord]:
    return run_stage(stage, Checkpoints(folder, 100), on_step=lambda _record: None, validate_every=3, ranks=ranks)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Ranks(int(sys.argv[2]), int(sys.argv[3])))
