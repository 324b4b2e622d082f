"""The gate at the end of a run: whether the concept's new version becomes its champion."""

from __future__ import annotations

from prefect.artifacts import create_table_artifact
from prefect.logging import get_run_logger

from pipeline_lib.errors import ArtifactError, InputError
from pipeline_lib.records import Decision
from pipeline_lib.steps.gate import (
    SAMPLES,
    decision_table,
    decision_tags,
    evidence,
    evidence_of,
    same_clips,
    told,
)
from pipeline_lib.tracking.concept_registry import ConceptRegistry, ConceptVersion
from tasks.courtesy import courtesy
from tasks.session import RunSession

OTHER_CLIPS = (
    "learned from other clips, and what looks like the one's is not what looks like the other's; whoever prefers it "
    "moves the alias in MLflow"
)


def promote(session: RunSession, model: str) -> None:
    """Asks the gate about a run's registered model, moves the alias `champion` where it passes, and tells.

    Args:
        session: whose results stand, and whose worker lives.
        model: `models:/<id>`, registered.
    """
    registry = ConceptRegistry(session.state.mlflow_uri, session.config.tracking.experiment)
    version = registry.version_of(session.config.concept_name, model)
    registry.note(version, evidence(session.steps, session.folder.run_id))
    while True:
        champion = registry.champion(version.name)
        if champion is not None and champion.number == version.number:
            return  # this run was here before it was stopped
        decision = _decided(session, champion)
        registry.note(version, decision_tags(decision, champion))  # first: a kill must leave no champion without a why
        if not decision.passed or registry.crown(version, instead_of=champion.number if champion else 0):
            break  # else another run was quicker: there is another champion to be compared with
    text = told(version, decision, champion)
    get_run_logger().info(text)
    session.note(text)
    with courtesy("the gate"):
        create_table_artifact(decision_table(decision), key="champion", description=text)


def _decided(session: RunSession, champion: ConceptVersion | None) -> Decision:
    try:
        if champion is None:
            return session.judge(None)
        if not same_clips(champion, session.steps["prepare"]):
            return Decision(passed=False, against="champion", reason=OTHER_CLIPS)
        return session.judge(evidence_of(champion, SAMPLES, session.store))
    except (ArtifactError, InputError) as error:  # what else goes wrong may go well the next time
        return Decision(passed=False, against="champion", reason=f"cannot be compared with {champion}: {error}")
