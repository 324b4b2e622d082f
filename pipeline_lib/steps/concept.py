"""Concept: the export folder that loads onto a stock pipeline, and its plain LoRA."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

from pipeline_lib.models.concept import TRIPLE_FILE, Companions, save_concept
from pipeline_lib.models.triple import LoraTriple
from pipeline_lib.records import ArtifactRef, ConceptRecord
from pipeline_lib.steps.caption import load_captions
from pipeline_lib.steps.generate import learned_names, wording
from pipeline_lib.steps.plan import RunPlan
from pipeline_lib.steps.step import Recipe, StepContext, StepResult, find_or_build

STAGE_VERSION = 2
KIND = "concept"


def concept(context: StepContext, plan: RunPlan, inputs: dict[str, ArtifactRef]) -> StepResult:
    """Writes the concept folder of the last stage.

    Args:
        context: method and base.
        plan: of the run.
        inputs: `clips`, `captions`, `stage`, the last one trained.

    Returns:
        The concept, found or made.
    """
    record = _record(context, plan, inputs)
    recipe = Recipe(
        step="concept",
        kind=KIND,
        version=STAGE_VERSION,
        inputs=[inputs["stage"], inputs["captions"]],
        settings=record.model_dump(mode="json"),
    )

    def make(folder: Path, _: str) -> None:
        stage = context.store.folder(inputs["stage"])
        beside = Companions.load(stage)
        triple = LoraTriple.load(stage / TRIPLE_FILE)
        save_concept(folder, record, triple, beside.tokens, beside.self_conditioning)

    return find_or_build(context, recipe, make)


def _record(context: StepContext, plan: RunPlan, inputs: dict[str, ArtifactRef]) -> ConceptRecord:
    captions = load_captions(context.store, inputs["captions"])
    asked = context.config.samples
    folder = context.store.folder(inputs["stage"])
    triple, words = LoraTriple.load(folder / TRIPLE_FILE), wording(context, captions, learned_names(folder))
    return ConceptRecord(
        name=context.config.concept_name,
        method=plan.method,
        base=plan.base,
        base_revision=context.config.base.revision,
        base_digest=plan.base_digest,
        family=plan.family,
        trigger=words.subject,
        motion_trigger=words.motion,
        class_noun=captions[0].class_noun,
        captions=tuple(captions),
        stages=plan.stages,
        rank=triple.rank,
        basis=triple.basis,
        identity_strength=asked.identity_strength,
        motion_strength=asked.motion_strength,
        seed=context.config.seed,
        data_digest=inputs["clips"].digest,
        version=version("mannerism"),
        loras=plan.loras,
        started_from=plan.started_from,
    )
