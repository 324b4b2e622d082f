"""A person looks at the captions before training, or at the samples before publishing; both only where asked for.

The flow run is suspended meanwhile: no process, no device, no slot is held. With the answer it starts again in a
new process and finds in the store what it had made. The accepted captions go on as the config's own.
"""

from __future__ import annotations

import atexit
import shutil
from datetime import UTC, datetime
from typing import TypeVar
from uuid import uuid4

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.context import FlowRunContext
from prefect.flow_runs import suspend_flow_run
from prefect.input import RunInput
from pydantic import BaseModel, ConfigDict, Field

from pipeline_lib.errors import ConfigError, StopRequested
from pipeline_lib.records import Caption
from pipeline_lib.run_config import RunConfig
from pipeline_lib.steps.caption import load_captions
from pipeline_lib.steps.prepare import load_clips
from pipeline_lib.steps.run_folder import RunFolder, run_identity
from pipeline_lib.steps.state import StateFolder
from tasks.caption import caption
from tasks.prepare import prepare
from tasks.session import RunSession, current_session, opened

_CAPTIONS, _SAMPLES = "captions", "samples"
_PART = "-review"


class Review(BaseModel):
    """Where the run waits for a person: only runs of a deployment can."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    captions: bool = Field(default=False, description="wait after captioning until the captions are accepted or edited")
    samples: bool = Field(default=False, description="wait before publishing until the samples are accepted")


class ClipCaption(BaseModel):
    """One clip's caption, in parts; the prompt of the first stage tells appearance, the rest is told with motion."""

    clip: str = Field(default="", description="file; not a part of the caption")
    class_noun: str = Field(default="", description="the subject's class in one noun")
    static: str = Field(default="", description="appearance, clothing")
    motion: str = Field(default="", description="the coarse action: 'runs to the left'")
    camera: str = Field(default="", description="how the camera moves")
    background: str = Field(default="", description="what is behind the subject")
    light: str = Field(default="", description="how the scene is lit")


class CaptionReview(RunInput):
    """The captions, to be accepted as they are or edited."""

    captions: list[ClipCaption] = Field(default=[], description="one for each clip, in the order of the inputs")


class SampleReview(RunInput):
    """The verdict on the samples."""

    publish: bool = Field(default=True, description="log and register the result; else the run ends as cancelled")
    comment: str = Field(default="", description="kept with the run")


class RefusedError(StopRequested):
    """A person refused the samples."""


Form = TypeVar("Form", bound=RunInput)


def check_review(review: Review) -> None:
    """Whether the run can wait for a person.

    Args:
        review: what was asked for.

    Raises:
        ConfigError: it cannot: no server would start it again.
    """
    context = FlowRunContext.get()
    waits = review.captions or review.samples
    if waits and (context is None or context.flow_run is None or context.flow_run.deployment_id is None):
        fix = "start the run from a deployment of `mannerism up`, or switch the review off"
        raise ConfigError("a review needs a server that starts the run again with the answer", fix=fix)


def review_captions(config: RunConfig) -> RunConfig:
    """Suspends the run until a person has seen its captions.

    Args:
        config: of the run.

    Returns:
        The config with the accepted captions as its own.
    """
    form = CaptionReview
    if not _was_asked(_CAPTIONS):
        form = CaptionReview.with_initial_data(
            description="Are these the captions to train with? Edit what is wrong, then submit.",
            captions=_captions_now(config),
        )
    answer = _answer(form, _CAPTIONS)
    shutil.rmtree(RunFolder(StateFolder.open(), run_identity(config) + _PART).path, ignore_errors=True)
    accepted = tuple(Caption(**item.model_dump(exclude={"clip"})) for item in answer.captions)
    concept = config.concept  # a noun of its own would win over the captions'
    if concept.class_noun and accepted:
        concept = concept.model_copy(update={"class_noun": accepted[0].class_noun})
    return config.model_copy(update={"captions": accepted, "concept": concept})


def review_samples() -> None:
    """Suspends the run until a person has seen its samples; inside the session, which ends its worker before.

    Raises:
        RefusedError: they are not to be published.
    """
    form = SampleReview
    if not _was_asked(_SAMPLES):
        current_session().rest("waits for the review of its samples")
        form = SampleReview.with_initial_data(
            description="The samples are among the run's artifacts, small, and whole in MLflow. Publish the result?"
        )
    answer = _answer(form, _SAMPLES)
    if not answer.publish:
        raise RefusedError(f"the samples were refused{answer.comment and ': '}{answer.comment}")


def _answer(form: type[Form], key: str) -> Form:
    if not _was_asked(key):
        atexit.register(_tell_once_more, str(_flow_run().id))
    return suspend_flow_run(wait_for_input=form, key=key)


def _tell_once_more(flow_run: str) -> None:
    """Says at the process's end that the run is suspended.

    Prefect's heartbeat goes on for a moment after the suspension; a last one after the event would let the
    automation on dead runs wait for another, in vain, and declare the run Crashed.
    """
    event = {
        "id": str(uuid4()),
        "occurred": datetime.now(UTC).isoformat(),
        "event": "prefect.flow-run.Suspended",
        "resource": {"prefect.resource.id": f"prefect.flow-run.{flow_run}"},
    }
    with get_client(sync_client=True) as client:
        client.request("POST", "/events", json=[event]).raise_for_status()


def _captions_now(config: RunConfig) -> list[ClipCaption]:
    """The captions as they would be used; worker and device are free again afterwards."""
    with opened(RunSession(config, StateFolder.open(), part=_PART)) as session:
        clips = prepare()
        made = load_captions(session.store, caption(clips).ref)
        names = [clip.record.name for clip in load_clips(session.store, clips.ref)]
        session.rest("waits for the review of its captions")
    return [ClipCaption(clip=name, **one.model_dump()) for name, one in zip(names, made, strict=True)]


def _flow_run() -> FlowRun:
    context = FlowRunContext.get()
    assert context is not None
    assert context.flow_run is not None
    return context.flow_run


def _was_asked(key: str) -> bool:
    return key in (_flow_run().empirical_policy.pause_keys or set())
