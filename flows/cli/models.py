"""`export`: a trained concept in the form that others load."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from flows.cli.generate import Strengths, at_hand, tell_loras, warn_of_idle_strengths
from flows.cli.output import put, put_json
from pipeline_lib.errors import InputError
from pipeline_lib.steps.state import StateFolder

if TYPE_CHECKING:
    from pipeline_lib.models.concept import Concept
    from pipeline_lib.records import ConceptRecord

FORMATS = ("diffusers", "comfyui", "peft", "concept")


def export_concept(name: str, form: str, strengths: Strengths, out: Path | None, *, as_json: bool) -> None:
    """Writes a LoRA or a concept folder at given strengths.

    Args:
        name: of a registered concept, a run, or a concept folder.
        form: "diffusers", "comfyui", "peft" or "concept".
        strengths: (identity, motion); None as recorded.
        out: file or folder; beside the caller when None.
        as_json: print an object.

    Raises:
        InputError: an unknown format, or something is in the way.
    """
    if form not in FORMATS:
        raise InputError(f"unknown format {form!r}", expected=", ".join(FORMATS))
    folder = at_hand(name, StateFolder.open()).folder  # before the import, which takes seconds
    from pipeline_lib.models.concept import read_concept
    from pipeline_lib.models.lora_export import lora_files

    concept = read_concept(folder)
    warn_of_idle_strengths(concept, strengths)
    record = _at(concept.record, strengths)
    tell_loras(record.name, record.loras, "what is exported does not hold them, so load them as well")
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


def _at(record: ConceptRecord, strengths: Strengths) -> ConceptRecord:
    identity, motion = strengths
    return record.model_copy(
        update={
            "identity_strength": record.identity_strength if identity is None else identity,
            "motion_strength": record.motion_strength if motion is None else motion,
        }
    )
