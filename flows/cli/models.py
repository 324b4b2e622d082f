"""Commands that use a trained concept: `generate` and `export`."""

from __future__ import annotations

import dataclasses
import itertools
import shutil
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from flows.cli.output import console, put, put_json
from pipeline_lib.errors import InputError, PipelineError
from pipeline_lib.run_config import RunConfig, load_config, parse_config
from pipeline_lib.steps.run_folder import find_run
from pipeline_lib.steps.state import StateFolder

if TYPE_CHECKING:
    from pipeline_lib.models.concept import Concept
    from pipeline_lib.records import ConceptRecord, LoraUse, Prompt

FORMATS = ("diffusers", "comfyui", "peft", "concept")
Strengths = tuple[float | None, float | None]


@dataclass(frozen=True)
class GenerateRequest:
    """What `generate` is asked for; strengths are (identity, motion), None as recorded.

    `prompts` are texts, `prompts_file` holds more; `loras` are written as in a config's `base.loras`.
    """

    prompts: list[str]
    prompts_file: str
    seeds: list[int]
    strengths: Strengths
    negative: str
    base: str
    loras: list[str]
    out: Path


def generate_videos(name: str, request: GenerateRequest, *, as_json: bool) -> None:
    """Samples a concept through the stock pipeline.

    Args:
        name: of a run, or a concept folder.
        request: what to make.
        as_json: print an object.
    """
    folder = _concept_folder(name)  # before the imports, which take seconds
    from pipeline_lib.generation.sample import SamplingSettings, generate
    from pipeline_lib.media.write import write_video
    from pipeline_lib.models.concept import load_concept, read_concept
    from pipeline_lib.registry import open_base
    from pipeline_lib.steps.shelf import resolve_device

    concept = read_concept(folder)
    prompts = _prompts(request, concept.record)
    _warn_of_idle_motion(concept, request.strengths[1])
    loras = request.loras or _loras_of_run(name, concept.record)
    trained = _as_trained(name)
    revision = "" if request.base else trained.base.revision
    source = {"source": request.base or concept.record.base, "revision": revision, "loras": loras}
    config = parse_config({"base": source, "training": {**trained.training.model_dump(), "processes": 1}}, "--lora")
    base = open_base(config, *resolve_device(config.training))
    pipeline = base.pipeline()
    record = load_concept(pipeline, folder, identity=request.strengths[0], motion=request.strengths[1])
    settings = SamplingSettings.of(base.spec)
    files = []
    with console.status("sampling"):
        for index, prompt in enumerate(prompts):
            negative = prompt.negative or request.negative or settings.negative_prompt
            for seed in request.seeds:
                chosen = dataclasses.replace(settings, negative_prompt=negative)
                frames = generate(base, record.wording.fill(prompt.text), seed, chosen, pipeline=pipeline)
                path = _free(request.out / f"{record.name}-{index}-{seed}.mp4")
                files.append(str(write_video(frames, path, settings.frames_per_second)))
    if as_json:
        put_json({"files": files, "trigger": record.trigger})
    else:
        for file in files:
            put(file)


def _as_trained(name: str) -> RunConfig:
    """A run's config, for how its base is kept and where; the defaults where only a concept's folder is there."""
    if (Path(name) / "concept.json").is_file():
        return RunConfig()
    return load_config(find_run(StateFolder.open(), name).path / "config.yaml")


def _loras_of_run(name: str, record: ConceptRecord) -> list[LoraUse]:
    """The LoRAs that a concept was trained with, from where its run has them; of those not there any more it tells."""
    if not record.loras:
        return []
    from pipeline_lib.models.lora_file import used_loras

    found: list[LoraUse] = []
    if not (Path(name) / "concept.json").is_file():
        with suppress(PipelineError):  # the files may be gone
            uses = load_config(find_run(StateFolder.open(), name).path / "config.yaml").base.loras
            if tuple(lora.fact for lora in used_loras(uses)) == record.loras:
                found = list(uses)
    if not found:
        _tell_loras(record, "say where they are with --lora FILE:STRENGTH, or the videos are made without them")
    return found


def _tell_loras(record: ConceptRecord, what: str) -> None:
    if record.loras:
        names = ", ".join(map(str, record.loras))
        console.print(
            f"note: {record.name} was trained with {names} on the base: {what}", markup=False, highlight=False
        )


def _free(path: Path) -> Path:
    """The path itself, or the next one that is not taken: nothing that was made before is overwritten."""
    others = (path.with_stem(f"{path.stem}-{number}") for number in itertools.count(2))
    return next(free for free in itertools.chain([path], others) if not free.exists())


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


def _warn_of_idle_motion(concept: Concept, motion: float | None) -> None:
    if motion not in (None, 1.0) and not concept.triple.has_residual:
        console.print(
            f"note: --motion has no effect: {concept.record.method} learned no motion of its own here; "
            "--identity scales all that was learned",
            markup=False,
        )


def export_concept(name: str, form: str, strengths: Strengths, out: Path | None, *, as_json: bool) -> None:
    """Writes a LoRA or a concept folder at given strengths.

    Args:
        name: of a run, or a concept folder.
        form: "diffusers", "comfyui", "peft" or "concept".
        strengths: (identity, motion); None as recorded.
        out: file or folder; beside the caller when None.
        as_json: print an object.

    Raises:
        InputError: an unknown format, or something is in the way.
    """
    if form not in FORMATS:
        raise InputError(f"unknown format {form!r}", expected=", ".join(FORMATS))
    folder = _concept_folder(name)  # before the import, which takes seconds
    from pipeline_lib.models.concept import read_concept
    from pipeline_lib.models.lora_export import lora_files

    concept = read_concept(folder)
    _warn_of_idle_motion(concept, strengths[1])
    _tell_loras(concept.record, "what is exported does not hold them, so load them as well")
    record = _at(concept.record, strengths)
    one_file = form in ("diffusers", "comfyui")
    target = out or Path(f"{record.name}.safetensors" if one_file else record.name)
    if one_file and target.suffix != ".safetensors":
        raise InputError(f"{target} cannot be a LoRA", expected="a name that ends in .safetensors")
    targets = [target] if form == "concept" else list(lora_files(concept.triple, target).values())
    if there := [path for path in targets if path.exists()]:
        raise InputError(f"{there[0]} is there already", fix="name another one with --out")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".export-") as scratch:
        for made, wanted in zip(_written(concept, record, form, Path(scratch) / target.name), targets, strict=True):
            shutil.move(made, wanted)
    if as_json:
        put_json({"path": str(targets[0]), "format": form, "trigger": record.trigger})
    else:
        words = record.wording.fill("{subject}")
        put(f"{' and '.join(map(str, targets))}: say {words!r} in the prompt")


def _written(concept: Concept, record: ConceptRecord, form: str, path: Path) -> list[Path]:
    """What a format consists of, written to a path or beside it."""
    from pipeline_lib.models.concept import provenance, save_concept
    from pipeline_lib.models.lora_export import lora_files, write_comfy_lora, write_lora, write_peft

    if form == "concept":
        return [save_concept(path, record, concept.triple, concept.tokens, concept.self_conditioning)]
    identity, motion = record.identity_strength, record.motion_strength
    if form == "peft":
        return write_peft(concept.triple, path, identity=identity, motion=motion)
    write = write_comfy_lora if form == "comfyui" else write_lora
    write(
        concept.triple,
        path,
        family=record.family,
        identity=identity,
        motion=motion,
        provenance=provenance(record),
    )
    return list(lora_files(concept.triple, path).values())


def _concept_folder(name: str) -> Path:
    if (Path(name) / "concept.json").is_file():
        return Path(name)
    folder = find_run(StateFolder.open(), name).path / "concept"
    if not (folder / "concept.json").is_file():
        raise InputError(f"the run {name} has no concept yet", fix=f"finish it: mannerism resume {name}")
    return folder


def _at(record: ConceptRecord, strengths: Strengths) -> ConceptRecord:
    identity, motion = strengths
    return record.model_copy(
        update={
            "identity_strength": record.identity_strength if identity is None else identity,
            "motion_strength": record.motion_strength if motion is None else motion,
        }
    )
