"""`python -m pipeline_lib.steps.train_rank`: a further process of a stage, as `other_ranks` starts it.

It trains its share of the samples, and writes and tells nothing.
"""

from __future__ import annotations

from typing import Any

from pipeline_lib.errors import StopRequested
from pipeline_lib.processes.protocol import Emit, StopFlag
from pipeline_lib.processes.serve import serve
from pipeline_lib.steps.other_ranks import GRACE_SECONDS, READY, VERB, RankJob
from pipeline_lib.steps.shelf import ModelShelf
from pipeline_lib.steps.step import StepContext
from pipeline_lib.steps.train import build_stage
from pipeline_lib.storage import ArtifactStore
from pipeline_lib.training.checkpoint import Checkpoints
from pipeline_lib.training.loop import run_stage
from pipeline_lib.training.ranks import PeerLostError, Ranks, joined
from pipeline_lib.training.sharding import shard


def main() -> None:
    """Serves the one request."""
    serve({VERB: train_share}, grace_seconds=GRACE_SECONDS)


def train_share(payload: dict[str, Any], emit: Emit, stop: StopFlag) -> dict[str, Any]:
    """Loads what the stage needs, says so, and trains with the others.

    Args:
        payload: a :class:`RankJob`.
        emit: takes progress events.
        stop: whether to stop, and all others with it.

    Returns:
        Nothing; what it learned, the first process has too.

    Raises:
        PipelineError: what went wrong here; that another process is gone is for that one to tell.
    """
    job = RankJob.model_validate(payload)
    shelf = ModelShelf(job.locks)
    context = StepContext(job.config, ArtifactStore(job.store), shelf, emit, stop, micro_batch=job.micro_batch)
    stage = build_stage(context, job.spec, job.inputs)
    emit({"event": READY})
    ranks = Ranks(job.rank, job.count)
    try:
        with joined(ranks, job.meeting, context.base.device, lambda: _leave_if_asked(stop)):
            ranks = shard(stage, ranks) if job.sharded else ranks
            checkpoints = Checkpoints(job.work, job.config.training.checkpoint_every)
            run_stage(stage, checkpoints, on_step=lambda _record: None, stop=stop, ranks=ranks)
    except PeerLostError:
        return {}
    return {}


def _leave_if_asked(stop: StopFlag) -> None:
    if stop():
        raise StopRequested("stopped while the other processes were starting")


if __name__ == "__main__":
    main()
