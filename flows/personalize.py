"""Personalise: from a clip to a concept, its samples, its scores and its report."""

from __future__ import annotations

from typing import Any, cast

from prefect import flow
from prefect.states import Cancelled

from flows.review import RefusedError, Review, check_review, review_captions, review_samples
from pipeline_lib.observers import wants_masks
from pipeline_lib.run_config import RunConfig
from pipeline_lib.steps.step import StepResult
from tasks.caption import caption
from tasks.concept import concept
from tasks.encode import encode
from tasks.evaluate import evaluate
from tasks.generate import generate_base, generate_personalised
from tasks.mask import mask
from tasks.plan import plan
from tasks.prepare import prepare
from tasks.prior import prior
from tasks.publish import publish
from tasks.report import report
from tasks.session import run_session
from tasks.train import train


@flow(name="personalize", flow_run_name="{config.concept_name}", persist_result=False, result_serializer="json")
def personalize(
    config: RunConfig = RunConfig(),  # noqa: B008 - frozen, and the form's defaults
    review: Review = Review(),  # noqa: B008
) -> dict[str, Any]:
    """Teaches a base a subject.

    Args:
        config: what to learn, from what, on which base, how.
        review: where the run waits for a person; nowhere, as a rule.

    Returns:
        Paths of the run's outputs, its scores, seconds per stage.
    """
    check_review(review)
    if review.captions:
        config = review_captions(config)
    try:
        return _road(config, review)
    except RefusedError as refused:
        return cast(dict[str, Any], Cancelled(message=str(refused)))  # Prefect takes a state for a flow's end


def _road(config: RunConfig, review: Review) -> dict[str, Any]:
    with run_session(config):
        clips = prepare()
        planned = plan(clips)
        captions = caption(clips)
        before = generate_base(captions)

        masks = {"masks": mask(clips)} if wants_masks(config) else {}
        sources = {"captions": captions, "data": encode(clips, captions, **masks)}
        if planned.has_prior:
            sources["prior"] = prior(captions)
        stages: dict[str, StepResult] = {}
        for spec in planned.stages:
            earlier = {"after": stages[spec.after]} if spec.after else {}
            stages[spec.name] = train(spec, {**sources, **earlier})
        last = stages[planned.stages[-1].name]

        made = {**sources, **masks, "clips": clips, "before": before, "stage": last}
        made["after"] = generate_personalised(captions, last)
        made["scores"] = evaluate(made)
        made["concept"] = concept(planned, made)
        report(planned, made, stages)
        if review.samples:
            review_samples()
        return publish(planned).model_dump(mode="json")
