"""The gate's decision on a run, made where the scores are: in the worker."""

from __future__ import annotations

from pipeline_lib.metrics.gate import against_champion, first_champion
from pipeline_lib.records import ArtifactRef, Decision
from pipeline_lib.steps.evaluate import evaluate, load_scores
from pipeline_lib.steps.step import StepContext


def judge(context: StepContext, inputs: dict[str, ArtifactRef]) -> Decision:
    """Whether a run's concept becomes the champion.

    The champion's samples are scored again, by today's encoders against this run's reference, which must be the
    champion's too: against other clips the challenger would be at home. Where nothing has changed, that is found.

    Args:
        context: of the run.
        inputs: `scores` of the run; where there is a champion, its samples as `champion`, and the run's `clips`,
            `captions`, `before` and, where it has them, `masks`.

    Returns:
        The decision.
    """
    ours = load_scores(context.store, inputs["scores"])
    if "champion" not in inputs:
        return first_champion(ours)
    theirs = evaluate(context, {**inputs, "after": inputs["champion"]})
    return against_champion(ours, load_scores(context.store, theirs.ref))
