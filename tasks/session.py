"""One run as its parent process sees it: the worker child, the tracker, what has been found or made.

A session holds a process, so it is no task parameter: tasks ask :func:`current_session`. The flow opens
one, or goes on with the one that the command line opened beforehand, so that the worker loads while
Prefect's server starts.
"""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

from filelock import FileLock

from pipeline_lib.errors import ResourceError, StopRequested, UnreachableError
from pipeline_lib.processes.interrupt import raise_if_asked
from pipeline_lib.processes.locks import acquire
from pipeline_lib.processes.worker_child import WorkerChild, WorkerDiedError
from pipeline_lib.records import Decision, Record
from pipeline_lib.run_config import RunConfig
from pipeline_lib.steps.check import check_config
from pipeline_lib.steps.plan import RunPlan
from pipeline_lib.steps.run_folder import RunFolder, RunRecord, RunResult, run_identity
from pipeline_lib.steps.state import StateFolder
from pipeline_lib.steps.step import StepResult
from pipeline_lib.tracking import DIGEST_TAG, NullTracker, RunStatus, Tracker, is_away, status_after
from pipeline_lib.tracking.reaper import Reaper

log = logging.getLogger(__name__)

STALL_SECONDS = 3600.0
LOAD_SECONDS = 10.0
"""Between two notes of the machine's load on the run's page."""
OnEvent = Callable[[dict[str, Any]], None]


class RunSession:
    """A run from its first check to its last file.

    Args:
        config: of the run.
        state: the state folder.
        on_event: told about every event of the worker.
        part: says that this is only a part of the run; its folder has this at the end of its name.

    Attributes:
        finished: the record of an equal run where nothing is left to do: then no worker is started and
            nothing is tracked.
        folder: the run folder.
        models: those of the trained stages in MLflow, by stage.
        steps: results so far, by step.

    Raises:
        InputError: the inputs cannot be used.
    """

    def __init__(
        self, config: RunConfig, state: StateFolder, on_event: OnEvent = lambda _event: None, *, part: str = ""
    ) -> None:
        self.config, self.state = config, state
        self.store = state.store
        self.folder = RunFolder(state, run_identity(config) + part)
        self.finished = self.folder.finished(config, self.store)
        if self.finished is None:
            check_config(config)
        self.steps: dict[str, StepResult] = {}
        self.models: dict[str, str] = {}
        self._listeners = [on_event]
        self._closed = False
        self._micro_batch, self._running = config.training.micro_batch, "prepare"
        self._shrunk: set[str] = set()
        self._judged: tuple[BaseException | None, bool] = (None, False)
        self._record: RunRecord | None = None
        self._lock: FileLock | None = None
        self._background = ThreadPoolExecutor(max_workers=1, thread_name_prefix="session")
        self._tracker: Tracker = NullTracker()
        self._reaper: Reaper | None = None
        self._first: Future[dict[str, Any]] | None = None
        command = [sys.executable, "-m", "pipeline_lib.worker", str(state.root)]
        self._worker = WorkerChild(command, log_path=self.folder.log, stall_seconds=STALL_SECONDS)

    def start(self) -> None:
        """Starts what takes longest, without waiting for it: the worker, on its first step.

        Waits while another process makes the same run, and finds then what that has made.
        """
        if self.finished is not None or self._record is not None:
            return
        self._lock = self.folder.lock()
        waits = {"event": "waiting", "words": f"waiting for another process that makes {self.folder.run_id}"}

        def wait() -> None:
            raise_if_asked()
            self._tell(waits)

        acquire(self._lock, wait)
        self.finished = self.folder.finished(self.config, self.store)
        if self.finished is None:
            self._record = self.folder.begin(self.config)
            self._first = self._background.submit(self._request, "prepare", {}, self._listeners[0])

    def track(
        self,
        tags: Mapping[str, str] | None = None,
        ended: Callable[[Sequence[str]], Collection[str]] = lambda _flow_runs: (),
    ) -> None:
        """Opens the run's page, or goes on with it; not where all is found, nor where it is not wanted.

        In the flow's own thread: MLflow and Prefect must not be imported at the same time.

        Args:
            tags: of the page: who makes the run.
            ended: of these flow runs, those that have ended: their pages are closed, if they are open.
        """
        if self.finished is not None or self._tracker.run_id or not self.config.tracking.mlflow:
            return
        from pipeline_lib.tracking.mlflow_tracker import MlflowTracker

        uri = self.state.mlflow_uri
        place = self.state.mlflow_place
        experiment = self.config.tracking.experiment
        # First: it makes the experiment, which the reaper must not.
        tracker = MlflowTracker(uri, experiment, place, system_metrics_seconds=LOAD_SECONDS)
        self._reaper = Reaper(uri, experiment, self.folder.run_id, self.folder.log)
        tracker.close_dangling(ended)
        params = self.config.model_dump(mode="json", exclude={"tracking"})
        tracker.start_run(self.config.concept_name, {DIGEST_TAG: self.folder.run_id, **(tags or {})}, params)
        self._tracker = tracker

    def listen(self, listener: OnEvent) -> None:
        """Tells somebody else, too, about the events of the worker and, as `done`, about the end of each step."""
        self._listeners.append(listener)

    def step(
        self, name: str, refs: Mapping[str, StepResult], on_event: OnEvent | None = None, **more: Record
    ) -> StepResult:
        """The result of a step: known without asking anybody, or the worker's.

        Args:
            name: of the step; stages are `train-<stage>`.
            refs: earlier results that it needs, by the names that the step gives them.
            on_event: told about this step's events, besides the session's own listener.
            **more: records that it needs: `plan`, `spec`.

        Returns:
            The result, kept in :attr:`steps` too.

        Raises:
            PipelineError: what went wrong in the worker.
            KeyboardInterrupt: a stop was asked for that got lost on the way.
        """
        raise_if_asked()
        self._running = name
        if self.finished is not None:
            result = self.finished.steps[name]
        else:
            verb = "train" if name.startswith("train-") else name
            result = StepResult.model_validate(self._ask(verb, refs, on_event, **more))
        self.steps[name] = result
        self._tell({"event": "done", "step": name, **result.model_dump(include={"found", "seconds", "figures"})})
        return result

    def plan(self, clips: StepResult) -> RunPlan:
        """What the run will train."""
        if self.finished is not None and self.finished.plan is not None:
            return self.finished.plan
        return RunPlan.model_validate(self._ask("plan", {"clips": clips}, None))

    def judge(self, champion: StepResult | None) -> Decision:
        """What the gate says of the run's scores, against a champion's samples where there is one."""
        names = {"scores": "evaluate", "clips": "prepare", "captions": "caption", "before": "generate-base"}
        names |= {"masks": "mask"} if "mask" in self.steps else {}
        refs = {name: self.steps[step] for name, step in names.items()} | ({"champion": champion} if champion else {})
        return Decision.model_validate(self._ask("judge", refs, None))

    @property
    def tracker(self) -> Tracker:
        """Where the run is written down; nowhere when all is found."""
        return self._tracker

    def may_retry(self, error: BaseException) -> bool:
        """Whether to try a failed step again: the worker died, a server is away, or memory ran out for the first time.

        After running out of memory, training goes on with one sample in a forward, once; other bits come of
        that, so a SIGKILL that the kernel does not explain changes nothing. Steps that are no training have no
        micro-batch to shrink; what hangs would hang again. Prefect may ask twice about one error.
        """
        if self._judged[0] is not error:
            self._judged = (error, self._judge(error))
        return self._judged[1]

    def _judge(self, error: BaseException) -> bool:
        if isinstance(error, WorkerDiedError):
            return self._shrink() if error.out_of_memory else True
        if isinstance(error, UnreachableError) or (self._tracker.run_id and is_away(error)):
            return True
        return isinstance(error, ResourceError) and "out of memory" in str(error) and self._shrink()

    def _shrink(self) -> bool:
        if not self._running.startswith("train-") or self._running in self._shrunk:
            return False
        self._shrunk.add(self._running)
        self._micro_batch = 1
        return True

    def collect(self, plan: RunPlan) -> None:
        """Copies the outputs into the run folder."""
        assert self._record is not None
        self._record = self.folder.collect(self._record, plan, self.steps, self.store)

    def note(self, text: str) -> None:
        """Adds a sentence to what the run tells a person; after :meth:`collect`."""
        assert self._record is not None
        self._record = self._record.model_copy(update={"notes": (*self._record.notes, text)})

    def finish(self) -> None:
        """Notes that the run is done, and where it is written down."""
        assert self._record is not None
        run = self.tracker.run_id
        tracking = {"uri": self.state.mlflow_uri, "run": run, "url": self.tracker.url} if run else {}
        self._record = self.folder.finish(self._record.model_copy(update={"tracking": tracking}))

    def result(self) -> RunResult:
        """What the finished run hands back."""
        record = self.finished or self._record
        assert record is not None
        return self.folder.result(record)

    def rest(self, why: str) -> None:
        """Ends worker and tracker of a run that will go on in another process, when a person has answered.

        Args:
            why: what it waits for.
        """
        self.close(StopRequested(why), "SCHEDULED")

    def close(self, error: BaseException | None = None, status: RunStatus | None = None) -> None:
        """Ends worker and tracker, once; notes a failure in the run folder.

        Args:
            error: what ended the run early.
            status: for the tracker; None: what the error means.
        """
        if self._closed:
            return
        self._closed = True
        if error is not None and self._record is not None:
            self.folder.fail(self._record, error)  # first: a second Ctrl-C ends the wait for the worker
        try:
            self._worker.close()
            self._background.shutdown(cancel_futures=True)
            self._worker.close()  # one that the first step was only starting
        finally:
            self._background.shutdown()
            try:
                self._end_tracking(status or status_after(error), error)
            finally:
                if self._lock is not None:
                    self._lock.release()

    def _end_tracking(self, status: RunStatus, error: BaseException | None) -> None:
        """The reaper stays where the run could not be closed: it tries again when we are gone."""
        if self._tracker.run_id:
            try:
                try:
                    if self.folder.log.is_file():
                        self._tracker.log_artifact(self.folder.log)
                finally:
                    self._tracker.end(status)
            except Exception:
                if error is None:
                    raise
                log.warning("the end of the run could not be written down", exc_info=True)  # `error` is told instead
                return
        if self._reaper is not None:
            self._reaper.dismiss()

    def _ask(
        self, verb: str, refs: Mapping[str, StepResult], on_event: OnEvent | None, **more: Record
    ) -> dict[str, Any]:
        def tell(event: dict[str, Any]) -> None:
            raise_if_asked()
            self._tell(event)
            if on_event is not None:
                on_event(event)

        self.start()
        first, self._first = self._first, None
        if first is not None:
            reply = first.result()
            if verb == "prepare":
                return reply
        arguments = {name: record.model_dump(mode="json") for name, record in more.items()}
        arguments["refs"] = {name: result.ref.model_dump() for name, result in refs.items()}
        return self._request(verb, arguments, tell)

    def _request(self, verb: str, arguments: dict[str, Any], on_event: OnEvent) -> dict[str, Any]:
        config = self.config.model_dump(mode="json")
        payload = {"config": config, "arguments": arguments, "micro_batch": self._micro_batch}
        hours = self.config.training.max_stage_hours if verb == "train" else 0.0
        wall, setting = 3600 * hours or math.inf, f"training.max_stage_hours={hours:g}"
        return self._worker.request(verb, payload, on_event, wall_seconds=wall, wall_setting=setting)

    def _tell(self, event: dict[str, Any]) -> None:
        for listener in self._listeners:
            listener(event)


_current: ContextVar[RunSession | None] = ContextVar("session", default=None)  # tasks run in their flow's own thread


def current_session() -> RunSession:
    """The session of the running flow."""
    session = _current.get()
    assert session is not None, "a task runs inside a flow that opened a session"
    return session


@contextmanager
def run_session(config: RunConfig) -> Iterator[RunSession]:
    """The session that was opened beforehand for this config, else a fresh one, closed at the end; both shown."""
    from tasks.progress import Progress  # with Prefect: who wants the worker to load meanwhile comes with a session
    from tasks.show import accompany

    beforehand = _current.get()
    known = beforehand is not None and beforehand.config == config
    session = beforehand if beforehand is not None and known else RunSession(config, StateFolder.open())
    session.listen(Progress().on_event)
    with nullcontext() if known else opened(session):
        accompany(session)
        yield session


@contextmanager
def opened(session: RunSession) -> Iterator[RunSession]:
    """Makes a session the current one, starts it, and closes it at the end."""
    token = _current.set(session)
    error: BaseException | None = None
    try:
        session.start()
        yield session
    except BaseException as raised:
        error = raised
        raise
    finally:
        _current.reset(token)
        session.close(error)
