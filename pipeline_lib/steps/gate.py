"""What the gate needs of a registered version: the artifacts that its scores rest on, and words for what it decided."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import ValidationError

from pipeline_lib.errors import ArtifactError
from pipeline_lib.records import ArtifactRef, Comparison, Decision
from pipeline_lib.steps.step import StepResult
from pipeline_lib.storage import ArtifactStore
from pipeline_lib.tracking.concept_registry import ConceptVersion

RUN_TAG = "mannerism.run"
GATE_TAG, REASON_TAG, DECISION_TAG = "mannerism.gate", "mannerism.gate.reason", "mannerism.gate.decision"
SAMPLES = "generate-personalised"
_EVIDENCE = ("prepare", "caption", "mask", "generate-base", SAMPLES, "evaluate", "concept")


def evidence(steps: Mapping[str, StepResult], run_id: str) -> dict[str, str]:
    """Tags of a version that say what it was made from and scored with.

    Args:
        steps: of its run, by step.
        run_id: name of its run folder.

    Returns:
        The run, and a reference to each artifact that scoring it again takes.
    """
    refs = {evidence_tag(name): steps[name].ref.model_dump_json() for name in _EVIDENCE if name in steps}
    return {RUN_TAG: run_id, **refs}


def evidence_of(version: ConceptVersion, step: str, store: ArtifactStore) -> StepResult:
    """An artifact that a version rests on, as it was noted when it was registered.

    Args:
        version: of a concept.
        step: that made the artifact.
        store: that has it.

    Returns:
        The step's result, found.

    Raises:
        ArtifactError: nothing was noted, or the artifact is not in this store (any more).
    """
    ref = _noted(version, step)
    store.get(ref)
    return StepResult(step=step, ref=ref, found=True)


def same_clips(version: ConceptVersion, clips: StepResult) -> bool:
    """Whether a version learned from these very clips.

    Args:
        version: of a concept.
        clips: what the step `prepare` of another run made.

    Returns:
        Whether the two hold the same bytes.

    Raises:
        ArtifactError: the version does not say what it learned from.
    """
    return _noted(version, "prepare").digest == clips.ref.digest


def decision_tags(decision: Decision, champion: ConceptVersion | None) -> dict[str, str]:
    """A decision as tags of the version that it is about.

    Args:
        decision: of the gate.
        champion: that it was compared with.

    Returns:
        Whether it passed, why, and all numbers as JSON.
    """
    compared = {} if champion is None else {"mannerism.gate.against": str(champion.number)}
    return {
        GATE_TAG: "passed" if decision.passed else "refused",
        REASON_TAG: decision.reason,
        DECISION_TAG: decision.model_dump_json(),
        **compared,
    }


def told(version: ConceptVersion, decision: Decision, champion: ConceptVersion | None) -> str:
    """A decision in one sentence."""
    if decision.passed:
        return f"{version} {decision.reason}: it is the champion now"
    stays = f"{champion} stays the champion" if champion else f"{version.name} has no champion"
    return f"{version} {decision.reason}: {stays}"


def decision_table(decision: Decision) -> list[dict[str, str]]:
    """The numbers behind a decision, a row for each metric."""
    return [_row(one, decision.against) for one in decision.comparisons]


def _noted(version: ConceptVersion, step: str) -> ArtifactRef:
    try:
        return ArtifactRef.model_validate_json(version.tags.get(evidence_tag(step), ""))
    except ValidationError as error:
        raise ArtifactError(f"{version} does not say what its {step} made") from error


def _row(one: Comparison, against: str) -> dict[str, str]:
    return {
        "metric": one.metric,
        "challenger": f"{one.challenger:.4g}",
        against: f"{one.other:.4g}",
        "difference": f"{one.difference:+.4g}",
        "interval": "–" if one.low is None else f"{one.low:+.4g} to {one.high:+.4g}",
        "pairs": str(one.num_pairs),
        "verdict": one.verdict,
    }


def evidence_tag(step: str) -> str:
    """The tag of a version that names what a step of its run made."""
    return f"mannerism.artifact.{step}"
