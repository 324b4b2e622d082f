"""The tracker that writes to MLflow: a parent run, a child run per stage, a model per LoRA."""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline_lib.records import ClipRecord
from pipeline_lib.tracking import concept_models, names
from pipeline_lib.tracking.connection import (
    STAGE_TAG,
    WRITER_TAG,
    FlowRuns,
    close_dangling,
    connect,
    page_address,
    quotable,
    writer,
)
from pipeline_lib.tracking.metric_log import MetricLog
from pipeline_lib.tracking.tracker import DIGEST_TAG, FLOW_RUN_TAG, Metric, RunStatus

log = logging.getLogger(__name__)

_PARENT_TAG = "mlflow.parentRunId"
_MLFLOW_BATCH = 100
_MAX_DATASET_DIGEST = 36


class MlflowTracker:
    """Writes runs to one MLflow experiment; see :class:`pipeline_lib.tracking.Tracker` for the contract.

    Args:
        uri: `sqlite:////absolute/path.db`, or a server's http address.
        experiment: its name; made when missing.
        artifact_location: an absolute folder or uri for a new experiment's files; empty leaves it to the server.
        system_metrics_seconds: how often the machine's load is noted in the parent run; `math.inf` for never.
    """

    def __init__(
        self,
        uri: str,
        experiment: str,
        artifact_location: str | Path,
        *,
        system_metrics_seconds: float = math.inf,
    ) -> None:
        self._connection = connect(uri, experiment, artifact_location)
        self._system_metrics_seconds = system_metrics_seconds
        self._run_id = ""
        self._flow_run: dict[str, str] = {}
        self._metrics: MetricLog | None = None
        self._monitor: Any = None

    @property
    def run_id(self) -> str:
        """See the contract."""
        return self._run_id

    @property
    def url(self) -> str:
        """See the contract."""
        if not self._run_id or not self._connection.uri.startswith("http"):
            return ""
        pages = page_address(self._connection.uri)
        return f"{pages}/#/experiments/{self._connection.experiment_id}/runs/{self._run_id}"

    def find_run(self, digest: str) -> str:
        """See the contract."""
        return self._connection.find_run(digest)

    def close_dangling(self, ended: FlowRuns = lambda _flow_runs: ()) -> list[str]:
        """Closes runs left open by processes that are gone, see :func:`.connection.close_dangling`; their ids."""
        return close_dangling(self._connection, ended)

    def start_run(self, name: str, tags: Mapping[str, str], params: Mapping[str, Any]) -> str:
        """See the contract."""
        self._flow_run = {FLOW_RUN_TAG: tags[FLOW_RUN_TAG]} if FLOW_RUN_TAG in tags else {}
        with self._connection.alone():
            former = self._connection.find_run(tags[DIGEST_TAG]) if DIGEST_TAG in tags else ""
            self._open(former, name, tags, params)
        self._watch_machine(resumed=bool(former))
        return self._run_id

    def child(self, name: str, params: Mapping[str, Any] | None = None) -> MlflowTracker:
        """See the contract."""
        assert self._run_id, "a stage belongs to a run: call start_run first"
        stage = names.key(name)
        tracker = copy.copy(self)  # the same connection; everything about the run is set by _open
        with self._connection.alone():
            runs = self._connection.find(
                f"tags.`{_PARENT_TAG}` = '{self._run_id}' AND tags.`{STAGE_TAG}` = '{quotable(stage)}'"
            )
            former = str(runs[0].info.run_id) if runs else ""
            tags = {_PARENT_TAG: self._run_id, STAGE_TAG: stage, **self._flow_run}
            tracker._open(former, name, tags, params or {})
        return tracker

    def log_metrics(self, metrics: Sequence[Metric]) -> None:
        """See the contract."""
        self._metric_log().add(metrics)

    def log_clip(self, clip: ClipRecord) -> None:
        """See the contract; it becomes the run's dataset input."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        facts = clip.model_dump_json()
        sources = [{"name": source.name, "sha256": source.sha256} for source in clip.sources]
        dataset = Dataset(
            name=names.run_name(clip.name),
            digest=hashlib.sha256(facts.encode()).hexdigest()[:_MAX_DATASET_DIGEST],
            source_type="local",
            source=json.dumps({"uri": names.run_name(clip.name), "files": sources[:100]}),
            profile=facts,
        )
        tag = InputTag("mlflow.data.context", "training")
        # MLflow looks a dataset up and writes it where it is missing: runs of one clip that end at once, as those of a
        # comparison, would both write it, and the second fail.
        with self._connection.alone():
            self._connection.client.log_inputs(self._open_run(), datasets=[DatasetInput(dataset, [tag])])

    def log_artifact(self, path: Path, folder: str = "") -> None:
        """See the contract."""
        client, place = self._connection.client, names.key(folder) if folder else None
        if path.is_dir():
            client.log_artifacts(self._open_run(), str(path), place)
        else:
            client.log_artifact(self._open_run(), str(path), place)

    def log_image(self, path: Path, key: str, step: int) -> None:
        """See the contract."""
        from PIL import Image

        client, series = self._connection.client, names.key(key)
        # MLflow adds time and a random part to the name, so a repeated image would be shown twice.
        start = f"images/{series.replace('/', '~')}+step+{step}+"
        if any(entry.path.startswith(start) for entry in client.list_artifacts(self._open_run(), "images")):
            return
        with Image.open(path) as image:
            client.log_image(self._open_run(), image.convert("RGB"), key=series, step=step, synchronous=True)

    def log_concept(
        self, folder: Path, name: str, kind: str, metrics: Mapping[str, float], *, register: bool, follows: str = ""
    ) -> str:
        """See the contract."""
        run_id = self._open_run()
        tags = {"mannerism.kind": kind, "mannerism.concept": name, "mannerism.follows": follows}
        model_name = f"{name}-{kind}" if kind else name
        model_id = concept_models.logged_model(self._connection, run_id, folder, model_name, tags)
        concept_models.score(self._connection, run_id, model_id, metrics)
        if register:
            concept_models.register(self._connection, model_id, name)
        return f"models:/{model_id}"

    def link(self, runs: Sequence[str], tag: str, value: str) -> None:
        """See the contract."""
        for run_id in runs:
            self._connection.client.set_tag(run_id, tag, value)

    def end(self, status: RunStatus = "FINISHED") -> None:
        """See the contract."""
        run_id = self._open_run()
        if self._monitor is not None:  # first: it must not outlive a run that cannot be closed now
            self._monitor.finish()
            self._monitor = None
        self._metric_log().flush()
        self._connection.client.set_terminated(run_id, status)
        if status in {"FAILED", "KILLED"}:
            # A stop that comes while a stage's page is being opened leaves it to nobody.
            open_stages = f"tags.`{_PARENT_TAG}` = '{run_id}' AND attributes.status = 'RUNNING'"
            for stage in self._connection.find(open_stages):
                self._connection.client.set_terminated(stage.info.run_id, status)

    def _open(self, former: str, name: str, tags: Mapping[str, str], params: Mapping[str, Any]) -> None:
        client, kept = self._connection.client, names.clean_tags({**tags, WRITER_TAG: writer()})
        if former:
            client.update_run(former, status="RUNNING")
            for tag, value in kept.items():
                client.set_tag(former, tag, value)
            self._run_id = former
        else:
            run = client.create_run(self._connection.experiment_id, tags=kept, run_name=names.run_name(name))
            self._run_id = str(run.info.run_id)
        self._metrics = MetricLog(client, self._run_id, resumed=bool(former))
        self._monitor = None
        self._log_params(params)

    def _log_params(self, params: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        client = self._connection.client
        known = client.get_run(self._run_id).data.params
        flat = names.flat_params(params)
        for name in flat.keys() & known.keys():
            if flat[name] != known[name]:
                log.warning("run %s keeps %s=%s, not %s", self._run_id, name, known[name], flat[name])
        entries = [Param(name, value) for name, value in flat.items() if name not in known]
        for start in range(0, len(entries), _MLFLOW_BATCH):
            client.log_batch(self._run_id, params=entries[start : start + _MLFLOW_BATCH])

    def _watch_machine(self, *, resumed: bool) -> None:
        if self._system_metrics_seconds == math.inf:
            return
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        self._monitor = SystemMetricsMonitor(
            self._run_id,
            sampling_interval=self._system_metrics_seconds,
            resume_logging=resumed,
            tracking_uri=self._connection.uri,
        )
        self._monitor.start()

    def _open_run(self) -> str:
        assert self._run_id, "nothing can be noted before start_run"
        return self._run_id

    def _metric_log(self) -> MetricLog:
        assert self._metrics is not None, "nothing can be noted before start_run"
        return self._metrics
