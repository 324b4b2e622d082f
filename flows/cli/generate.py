"""`generate` and `concepts`: what is registered, and videos of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.cli.output import console, put, put_json, put_table
from flows.environment import join_servers, prepare_environment
from pipeline_lib.errors import InputError
from pipeline_lib.steps.state import StateFolder

if TYPE_CHECKING:
    from pipeline_lib.models.concept import Concept
    from pipeline_lib.records import ConceptRecord, LoraFact, LoraUse, Prompt
    from pipeline_lib.steps.concepts import FoundConcept
    from pipeline_lib.tracking.concept_registry import ConceptVersion

Strengths = tuple[float | None, float | None]


@dataclass(frozen=True)
class GenerateRequest:
    """What `generate` is asked for; strengths are (identity, motion), None as recorded.

    `prompts` are texts, `prompts_file` holds more; `loras` are written as in a config's `base.loras`; `frames` 0: as
    many as the base makes.
    """

    prompts: list[str]
    prompts_file: str
    seeds: list[int]
    strengths: Strengths
    negative: str
    base: str
    loras: list[str]
    out: Path
    frames: int = 0


def generate_videos(name: str, request: GenerateRequest, *, as_json: bool) -> None:
    """Samples a concept through the stock pipeline, in a worker child.

    Args:
        name: of a registered concept, perhaps with a version; of a run; or a concept folder.
        request: what to make.
        as_json: print an object.
    """
    state = StateFolder.open()
    found = at_hand(name, state)
    from pipeline_lib.models.concept import read_concept
    from pipeline_lib.steps.use_concept import SampleRequest
    from tasks.use_concept import concept_config, put_videos, sample_concept

    concept = read_concept(found.folder)
    prompts = _prompts(request, concept.record)
    warn_of_idle_strengths(concept, request.strengths)
    identity, motion = request.strengths
    wanted = SampleRequest(
        prompts=tuple(prompts),
        seeds=tuple(request.seeds),
        identity=identity,
        motion=motion,
        negative=request.negative,
        frames=request.frames,
    )
    config = concept_config(found, request.base, _loras(found, concept.record, request))
    with console.status("sampling") as status:

        def show(event: dict[str, Any]) -> None:
            if event["event"] == "progress":
                status.update(f"sampling: {event['done']} of {event['total']}")
            elif event["event"] == "waiting":
                status.update(event["words"])

        made = sample_concept(found, wanted, config, state, show)
    files = [str(path) for path in put_videos(made, state, wanted, concept.record.name, request.out)]
    if as_json:
        put_json({"files": files, "trigger": concept.record.trigger, "concept": found.label, "found": made.found})
    else:
        for file in files:
            put(file)


def list_concepts(*, as_json: bool) -> None:
    """Registered concepts: their champion, its scores, its date; of those without one, why."""
    from pipeline_lib.steps.concepts import registry_of

    state = StateFolder.open()
    _meet(state)
    registry = registry_of(state)
    found = {name: registry.versions(name) for name in registry.concepts()} if registry else {}
    facts = [_facts(name, versions) for name, versions in found.items() if versions]
    if as_json:
        put_json({"concepts": facts})
    elif not facts:
        put("no concepts yet; a run registers its own when it ends")
    else:
        put_table([{**{key: one[key] for key in _SHOWN}, **_gated(one["scores"])} for one in facts])
        for one in facts:
            if one["refused"]:
                put(f"  {one['concept']}: {one['refused']}")


_SHOWN = ("concept", "champion", "versions", "date")


def at_hand(name: str, state: StateFolder) -> FoundConcept:
    """The concept of that name, before the imports, which take seconds.

    Args:
        name: as a person gave it.
        state: the state folder.

    Returns:
        See :func:`pipeline_lib.steps.concepts.find_concept`.
    """
    from pipeline_lib.steps.concepts import find_concept

    if not (Path(name) / "concept.json").is_file() and name not in state.run_names():
        _meet(state)  # MLflow will be asked
    return find_concept(name, state)


def warn_of_idle_strengths(concept: Concept, strengths: Strengths) -> None:
    """Tells of a strength that was set and has no effect."""
    from pipeline_lib.models.concept import Companions, idle_strengths

    identity, motion = (1.0 if strength is None else strength for strength in strengths)
    beside = Companions(concept.tokens, concept.self_conditioning)
    spelt = ("--identity", "--motion")
    if told := idle_strengths(concept.record.method, concept.triple, beside, (identity, motion), spelt):
        console.print(f"note: {told}", markup=False)


def tell_loras(name: str, loras: Sequence[LoraFact], what: str) -> None:
    """Tells which LoRAs a concept was trained with, and what to do about it."""
    if loras:
        names = ", ".join(map(str, loras))
        console.print(f"note: {name} was trained with {names} on the base: {what}", markup=False, highlight=False)


def _meet(state: StateFolder) -> None:
    prepare_environment(state, quiet=True)
    join_servers(state)


def _loras(found: FoundConcept, record: ConceptRecord, request: GenerateRequest) -> Sequence[LoraUse | str]:
    """What goes on the base beside the LoRAs that its name stands for; of what will be missing it tells."""
    from pipeline_lib.steps.concept_loras import loras_for

    loras = loras_for(found, record, request.base)
    if request.loras:
        return request.loras
    tell_loras(record.name, loras.missing, f"{loras.advice}, or the videos are made without them")
    return loras.uses


def _prompts(request: GenerateRequest, record: ConceptRecord) -> list[Prompt]:
    from pipeline_lib.generation.prompts import check_prompts, read_prompts
    from pipeline_lib.records import Prompt

    asked = [Prompt(text=text) for text in request.prompts]
    if request.prompts_file:
        asked += read_prompts(Path(request.prompts_file).expanduser())
    if not asked:
        raise InputError("there is nothing to generate", fix="give a prompt, e.g. 'a {subject} in the snow'")
    prompts, notes = check_prompts(asked, record.class_noun)
    for note in notes:
        console.print(f"note: {note}", markup=False, highlight=False)
    return prompts


def _facts(name: str, versions: list[ConceptVersion]) -> dict[str, Any]:
    from pipeline_lib.steps.gate import GATE_TAG, REASON_TAG
    from pipeline_lib.tracking.concept_registry import CHAMPION

    champion = next((version for version in versions if CHAMPION in version.aliases), None)
    shown, latest = champion or versions[-1], versions[-1]
    refused = latest.tags.get(REASON_TAG, "") if latest.tags.get(GATE_TAG) == "refused" else ""
    return {
        "concept": name,
        "champion": champion.number if champion else "none",
        "versions": len(versions),
        "date": shown.created.isoformat(timespec="seconds"),
        "scores": dict(shown.scores),
        "refused": f"{latest} {refused}" if refused else "",
    }


def _gated(scores: dict[str, float]) -> dict[str, str]:
    from pipeline_lib.metrics.gate import gate_metrics

    return {"scores": ", ".join(f"{name} {scores[name]:.3f}" for name in gate_metrics(scores))}
