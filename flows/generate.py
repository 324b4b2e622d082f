"""Generate: videos of a concept that is trained, by default of its champion."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from pipeline_lib.errors import InputError
from pipeline_lib.run_config import RunConfig
from pipeline_lib.sections import SamplesSection
from pipeline_lib.steps.concepts import FoundConcept, find_concept
from pipeline_lib.steps.state import StateFolder
from pipeline_lib.steps.step import StepResult
from tasks.courtesy import courtesy
from tasks.show import plain
from tasks.use_concept import concept_config, put_videos, sample_concept

if TYPE_CHECKING:
    from pipeline_lib.steps.use_concept import SampleRequest


@flow(name="generate", flow_run_name="{concept}", persist_result=False, result_serializer="json")
def generate(
    concept: str = "",
    samples: SamplesSection = SamplesSection(),  # noqa: B008 - frozen
    frames: int = 0,
    base: str = "",
    out: str = "",
) -> dict[str, Any]:
    """Makes videos with a concept.

    Args:
        concept: `wolf` (its champion), `wolf@3`, a run's name, or a concept folder.
        samples: prompts, seeds, strengths; at least one prompt.
        frames: of each video; 0: as many as the base makes.
        base: another source of the concept's base; empty: the one that it was trained on.
        out: folder of the videos; empty: `generated` in the state folder.

    Returns:
        Which concept it was, and the files.

    Raises:
        InputError: no such concept, no champion, or a prompt that cannot be used; says what there is.
    """
    from pipeline_lib.generation.prompts import check_prompts  # seconds: not for those who only look at the flow
    from pipeline_lib.models.concept import read_concept
    from pipeline_lib.steps.check import asked_prompts
    from pipeline_lib.steps.use_concept import SampleRequest

    state = StateFolder.open()
    found = find_concept(concept, state)
    record = read_concept(found.folder).record
    prompts, notes = check_prompts(asked_prompts(RunConfig(samples=samples)), record.class_noun)
    if not prompts:
        raise InputError("there is nothing to generate", fix="give a prompt, e.g. 'a {subject} in the snow'")
    request = SampleRequest(
        prompts=tuple(prompts),
        seeds=samples.seeds,
        identity=samples.identity_strength,
        motion=samples.motion_strength,
        negative=samples.negative_prompt,
        frames=frames,
        num_inference_steps=samples.num_inference_steps,
        guidance_scale=samples.guidance_scale,
    )
    made = sample(found, request, base)
    files = put_videos(made, state, request, record.name, Path(out).expanduser() if out else state.generated)
    table = "\n".join(f"- `{path}`" for path in files)
    with courtesy("the videos"):
        create_markdown_artifact(f"{plain(found.label)}\n\n{table}\n", key="generated", description="videos")
    return {"concept": found.label, "files": [str(path) for path in files], "found": made.found, "notes": notes}


@task(cache_policy=NO_CACHE, persist_result=False, result_serializer="json")
def sample(found: FoundConcept, request: SampleRequest, base: str) -> StepResult:
    """Samples in a worker child; what was made before is found."""
    from pipeline_lib.models.concept import read_concept
    from pipeline_lib.steps.concept_loras import loras_for

    loras = loras_for(found, read_concept(found.folder).record, base)
    if loras.missing:
        told = ", ".join(map(str, loras.missing))
        raise InputError(
            f"{found.label} was trained with {told} on the base",
            fix=f"use the command, mannerism generate: {loras.advice}",
        )
    return sample_concept(found, request, concept_config(found, base, loras.uses), StateFolder.open())
