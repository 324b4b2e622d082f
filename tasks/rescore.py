"""A registered version scored again, as it was made, by today's encoders."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from pipeline_lib.run_config import RunConfig, load_config
from pipeline_lib.steps.gate import RUN_TAG, SAMPLES, evidence_of, evidence_tag
from pipeline_lib.steps.run_folder import CONFIG_FILE
from pipeline_lib.steps.run_scores import run_scores
from pipeline_lib.steps.state import StateFolder
from pipeline_lib.steps.step import StepResult
from pipeline_lib.tracking import ended
from pipeline_lib.tracking.concept_registry import ConceptRegistry, ConceptVersion
from pipeline_lib.tracking.mlflow_tracker import MlflowTracker

_INPUTS = {"clips": "prepare", "captions": "caption", "before": "generate-base", "after": SAMPLES}


@task(cache_policy=NO_CACHE, persist_result=False, result_serializer="json", task_run_name="{version}")
def rescore(version: ConceptVersion, registry: ConceptRegistry, ask: Callable[..., StepResult]) -> dict[str, Any]:
    """Scores the samples of a version's run again; where that gives what is noted already, nothing is written.

    Args:
        version: of a registered concept.
        registry: that knows it.
        ask: a worker child, from :func:`tasks.use_concept.worker_child`.

    Returns:
        A row: the concept, whether its scores are new, and the scores.

    Raises:
        PipelineError: what the scores rest on is not in this store (any more), or the worker failed.
    """
    state = StateFolder.open()
    store, config = state.store, load_config(state.runs / version.tags.get(RUN_TAG, "-") / CONFIG_FILE)
    inputs = _INPUTS | ({"masks": "mask"} if evidence_tag("mask") in version.tags else {})
    refs = {name: evidence_of(version, step, store).ref for name, step in inputs.items()}
    made = ask("evaluate", config, refs, lambda _event: None)
    scores = run_scores(store, made.ref).scores["personalised"]
    same = version.tags.get(evidence_tag("evaluate")) == made.ref.model_dump_json()
    if not same:
        _log(version, registry, made, scores, config)
    return {"concept": str(version), "status": "found" if same else "scored", **scores}


def _log(
    version: ConceptVersion, registry: ConceptRegistry, made: StepResult, scores: dict[str, float], config: RunConfig
) -> None:
    """The scores in a run of their own, and on the model; the version then names what they rest on."""
    state = StateFolder.open()
    tracker = MlflowTracker(state.mlflow_uri, config.tracking.experiment, state.mlflow_place)
    tags = {"mannerism.kind": "reevaluation", "mannerism.concept": version.name}
    with ended(tracker):
        tracker.start_run(f"reevaluate {version}", tags, {"version": version.number, "scores": made.ref.key})
        tracker.log_metrics([(name, value, 0) for name, value in scores.items()])
        registry.score(version, scores, tracker.run_id)
        registry.note(version, {evidence_tag("evaluate"): made.ref.model_dump_json()})
