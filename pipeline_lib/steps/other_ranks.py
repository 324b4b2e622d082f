"""The further processes that train a stage beside the one that runs the step: started, watched, ended.

The step's own process, which has the base at hand, is the first of them; a launcher (torchrun, `accelerate launch`)
would start all of them afresh beside it. Each further one is a child like the worker itself: it opens the base on a
device of its own, tells its errors in the same words, and leaves when its pipe closes, so that a worker that is killed
leaves nobody behind. They live as long as the stage: between stages their memory is free.
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch

from pipeline_lib.errors import InputError, PipelineError, ResourceError, StopRequested
from pipeline_lib.processes.worker_child import WorkerChild, WorkerDiedError
from pipeline_lib.records import ArtifactRef, Record, StageSpec
from pipeline_lib.run_config import RunConfig
from pipeline_lib.steps.step import StepContext
from pipeline_lib.training.ranks import ALONE, PeerLostError, Ranks, joined

VERB = "train"
READY = "ready"
GRACE_SECONDS = 10.0  # it has nothing to save
_PROGRAM = "pipeline_lib.steps.train_rank"
_LOOK_SECONDS = 0.2


class RankJob(Record):
    """What one further process is to do.

    Attributes:
        config: the run's, with the device of this process.
        spec: of the stage.
        inputs: of the stage.
        micro_batch: samples in one forward; 0: the whole share at once.
        store: root of the artifact store.
        work: folder of the stage's checkpoint.
        locks: folder of the device locks.
        meeting: file that the processes meet by.
        rank: its number, from 1.
        count: of all processes.
        sharded: each keeps a part of the base.
    """

    config: RunConfig
    spec: StageSpec
    inputs: Mapping[str, ArtifactRef]
    micro_batch: int
    store: Path
    work: Path
    locks: Path
    meeting: Path
    rank: int
    count: int
    sharded: bool = False


@contextmanager
def other_ranks(
    context: StepContext, spec: StageSpec, inputs: Mapping[str, ArtifactRef], work: Path
) -> Iterator[Ranks]:
    """Starts the further processes of a stage, where the config asks for some, and ends them.

    Args:
        context: its config tells how many.
        spec: of the stage.
        inputs: of the stage.
        work: folder of the stage's checkpoint; the processes' logs go there too.

    Yields:
        Ranks: the caller's place, the first, among processes that have loaded all they need.

    Raises:
        PipelineError: what went wrong in one of them; all have ended.
        StopRequested: a stop was asked for before all were ready.
    """
    count = context.config.training.processes
    if count == 1:
        yield ALONE
        return
    with ExitStack() as held:
        meeting = Path(held.enter_context(tempfile.TemporaryDirectory())) / "meeting"
        threads = held.enter_context(_fewer_threads(context, count))
        jobs = [_job(context, spec, inputs, work, meeting, rank) for rank in range(1, count)]
        others = [_OtherRank(job, work / f"process-{job.rank + 1}.log", threads) for job in jobs]
        for other in others:
            other.start()
            held.callback(other.close)
        _wait_until_ready(context, others)
        ranks = Ranks(0, count)
        try:
            with joined(ranks, meeting, context.base.device, lambda: _look_after(context, others)):
                yield ranks
        except PeerLostError as error:
            raise _first_failure(others) or error from error


class _OtherRank(threading.Thread):
    """Asks one further process to train, and hears it out.

    Args:
        job: what it is to do.
        log: gets what it says on stderr.
        threads: of its arithmetic; 0: as many as it likes.

    Attributes:
        ready: it has loaded all it needs.
        failure: what went wrong in it, once it has ended.
        waiting: what it waits for, in words.
    """

    def __init__(self, job: RankJob, log: Path, threads: int) -> None:
        super().__init__(name=f"rank {job.rank}", daemon=True)
        self.ready, self.waiting = threading.Event(), ""
        self.failure: PipelineError | None = None
        self._job = job
        self._worker = WorkerChild(
            [sys.executable, "-m", _PROGRAM],
            log_path=log,
            grace_seconds=GRACE_SECONDS,
            env={"OMP_NUM_THREADS": str(threads)} if threads else {},
        )

    def run(self) -> None:
        try:
            self._worker.request(VERB, self._job.model_dump(mode="json"), self._hear)
        except StopRequested:
            pass  # all of them were stopped
        except PipelineError as error:
            self.failure = _of_process(self._job, error)

    def close(self) -> None:
        """Ends the process, and waits until it is gone."""
        while True:
            self._worker.close()
            self.join(_LOOK_SECONDS)
            if not self.is_alive():
                return  # else its process was not yet there to be closed

    def _hear(self, event: dict[str, Any]) -> None:
        if event["event"] == READY:
            self.ready.set()
        elif event["event"] == "waiting":
            self.waiting = str(event["words"])


def _of_process(job: RankJob, error: PipelineError) -> PipelineError:
    """The error, saying where it was; a process that the kernel killed for its memory ran out of memory."""
    if isinstance(error, InputError):
        return error
    starved = isinstance(error, WorkerDiedError) and error.out_of_memory
    kind = ResourceError if starved else type(error)
    return kind(f"process {job.rank + 1} of {job.count}: {error}")


def _job(
    context: StepContext, spec: StageSpec, inputs: Mapping[str, ArtifactRef], work: Path, meeting: Path, rank: int
) -> RankJob:
    base, training = context.base, context.config.training
    device = f"cuda:{rank}" if base.device.type == "cuda" else "cpu"
    own = training.model_copy(update={"device": device, "processes": 1, "sharded": False})
    return RankJob(
        config=context.config.model_copy(update={"training": own}),
        spec=spec,
        inputs=inputs,
        micro_batch=context.micro_batch,
        store=context.store.root,
        work=work,
        locks=context.shelf.locks,
        meeting=meeting,
        rank=rank,
        count=training.processes,
        sharded=training.sharded,
    )


def _wait_until_ready(context: StepContext, others: Sequence[_OtherRank]) -> None:
    for other in others:
        while not other.ready.wait(_LOOK_SECONDS):
            _look_after(context, others)
            words, other.waiting = other.waiting, ""
            if words:
                context.waiting(words)


def _look_after(context: StepContext, others: Sequence[_OtherRank]) -> None:
    """Raises what ended one of them, or that a stop was asked for."""
    gone = next((other for other in others if not other.is_alive()), None)
    if gone is not None and gone.failure is not None:
        raise gone.failure
    if gone is not None or context.stop():
        raise StopRequested("stopped while the other processes were starting")


def _first_failure(others: Sequence[_OtherRank]) -> PipelineError | None:
    """What one of them said, or how it ended; None where none tells within the time to leave."""
    end = time.monotonic() + GRACE_SECONDS
    while time.monotonic() < end:
        failure = next((other.failure for other in others if other.failure is not None), None)
        if failure is not None or not any(other.is_alive() for other in others):
            return failure
        time.sleep(_LOOK_SECONDS)
    return None


@contextmanager
def _fewer_threads(context: StepContext, count: int) -> Iterator[int]:
    """The CPU's threads shared among processes that compute on it; 0 where they compute elsewhere."""
    if context.base.device.type != "cpu":
        yield 0
        return
    threads = torch.get_num_threads()
    share = max(1, threads // count)
    torch.set_num_threads(share)
    try:
        yield share
    finally:
        torch.set_num_threads(threads)
