"""The steps by verb, as the worker serves them: JSON arguments in, a record out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pipeline_lib.records import ArtifactRef, Record, StageSpec
from pipeline_lib.steps.caption import caption
from pipeline_lib.steps.concept import concept
from pipeline_lib.steps.encode import encode
from pipeline_lib.steps.evaluate import evaluate
from pipeline_lib.steps.generate import generate_base, generate_personalised
from pipeline_lib.steps.judge import judge
from pipeline_lib.steps.mask import mask
from pipeline_lib.steps.plan import RunPlan, plan
from pipeline_lib.steps.prepare import prepare
from pipeline_lib.steps.prior import prior
from pipeline_lib.steps.report import report
from pipeline_lib.steps.step import StepContext
from pipeline_lib.steps.train import train
from pipeline_lib.steps.use_concept import SampleRequest, use_concept

Arguments = Mapping[str, Any]
Verb = Callable[[StepContext, Arguments], Record]


def _refs(arguments: Arguments) -> dict[str, ArtifactRef]:
    return {name: ArtifactRef.model_validate(ref) for name, ref in arguments["refs"].items()}


def _plan(arguments: Arguments) -> RunPlan:
    return RunPlan.model_validate(arguments["plan"])


VERBS: Mapping[str, Verb] = {
    "prepare": lambda context, _: prepare(context),
    "plan": lambda context, sent: plan(context, **_refs(sent)),
    "caption": lambda context, sent: caption(context, **_refs(sent)),
    "mask": lambda context, sent: mask(context, **_refs(sent)),
    "encode": lambda context, sent: encode(context, **_refs(sent)),
    "prior": lambda context, sent: prior(context, **_refs(sent)),
    "train": lambda context, sent: train(context, StageSpec.model_validate(sent["spec"]), _refs(sent)),
    "generate-base": lambda context, sent: generate_base(context, **_refs(sent)),
    "generate-personalised": lambda context, sent: generate_personalised(context, **_refs(sent)),
    "evaluate": lambda context, sent: evaluate(context, _refs(sent)),
    "judge": lambda context, sent: judge(context, _refs(sent)),
    "concept": lambda context, sent: concept(context, _plan(sent), _refs(sent)),
    "report": lambda context, sent: report(context, _plan(sent), _refs(sent)),
    "use-concept": lambda context, sent: use_concept(
        context, **_refs(sent), request=SampleRequest.model_validate(sent["request"])
    ),
}
