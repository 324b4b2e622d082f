"""A trained concept on disk, and putting it on a stock pipeline.

The folder holds `concept.json` (what it is), `lora.safetensors` (a plain LoRA at the recorded strengths,
for any stock loader; of a base with two experts `lora_high_noise.safetensors` and `lora_low_noise.safetensors`),
`triple.safetensors` (the trained factors, for other strengths and more training) and, when they were trained,
`tokens.safetensors` (learned words) and `self_conditioning.safetensors`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from pydantic import ValidationError

from pipeline_lib.errors import InputError
from pipeline_lib.models.attachment import Attachment
from pipeline_lib.models.families import FAMILIES
from pipeline_lib.models.learned_tokens import LearnedTokens
from pipeline_lib.models.lora_export import check_fit, lora_tensors, write_lora
from pipeline_lib.models.self_conditioning import PatchProjection
from pipeline_lib.models.triple import SECOND_EXPERT, LoraTriple
from pipeline_lib.records import ConceptRecord
from pipeline_lib.storage import write_atomic

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

RECORD_FILE, LORA_FILE = "concept.json", "lora.safetensors"
TRIPLE_FILE, TOKENS_FILE = "triple.safetensors", "tokens.safetensors"
SELF_CONDITIONING_FILE = "self_conditioning.safetensors"


@dataclass(frozen=True)
class Companions:
    """What a stage may have trained beside the LoRA: no stock loader knows it."""

    tokens: LearnedTokens | None = None
    self_conditioning: PatchProjection | None = None

    @staticmethod
    def load(folder: Path) -> Companions:
        """Reads those that a stage's or a concept's folder has."""
        words, projection = folder / TOKENS_FILE, folder / SELF_CONDITIONING_FILE
        return Companions(
            LearnedTokens.load(words) if words.is_file() else None,
            PatchProjection.load(projection) if projection.is_file() else None,
        )

    def attach(self, pipeline: DiffusionPipeline, identity: float = 1.0) -> Attachment:
        """Puts them on a stock pipeline until the attachment is removed.

        Args:
            pipeline: of the base that they were trained on.
            identity: strength of the look, which is that of the self-conditioning too: at zero it is off.

        Returns:
            What takes them off again.

        Raises:
            InputError: they were trained on another base; nothing is left on the pipeline.
        """
        stock: Any = pipeline
        handles = []
        if self.tokens is not None:
            handles.append(self.tokens.attach(stock.text_encoder, stock.tokenizer))
        try:
            if self.self_conditioning is not None and identity:
                handles.append(self.self_conditioning.attach(pipeline, identity))
        except InputError:
            Attachment(handles).remove()
            raise
        return Attachment(handles)


@dataclass(frozen=True)
class Concept:
    """A concept folder as read."""

    record: ConceptRecord
    triple: LoraTriple
    tokens: LearnedTokens | None
    self_conditioning: PatchProjection | None = None


def idle_strengths(
    method: str, triple: LoraTriple, beside: Companions, strengths: tuple[float, float], spelt: tuple[str, str]
) -> str:
    """Tells which strengths other than 1 change nothing, and why.

    Args:
        method: its name.
        triple: the trained factors.
        beside: what was trained beside them.
        strengths: of identity and of motion.
        spelt: what the person who set them calls the two.

    Returns:
        A sentence; empty where every strength that was set has an effect.
    """
    learned = not triple.is_zero
    acts = learned or beside.self_conditioning is not None, learned and triple.has_residual
    idle = [name for name, value, has in zip(spelt, strengths, acts, strict=True) if value != 1.0 and not has]
    if not idle:
        return ""
    told = f"{' and '.join(idle)} {'have' if len(idle) > 1 else 'has'} no effect: {method} learned"
    if not acts[0]:
        return f"{told} words alone"
    words = "" if beside.tokens is None else " but the words"
    return f"{told} no motion of its own here; {spelt[0]} scales all that was learned{words}"


_attached: WeakKeyDictionary[DiffusionPipeline, dict[str, Attachment]] = WeakKeyDictionary()


def save_concept(
    folder: Path,
    record: ConceptRecord,
    triple: LoraTriple,
    tokens: LearnedTokens | None,
    self_conditioning: PatchProjection | None = None,
) -> Path:
    """Writes a concept folder; the record last, so that a folder with one is whole.

    Args:
        folder: made when missing.
        record: its strengths are baked into the plain LoRA.
        triple: the trained factors.
        tokens: learned words, if any.
        self_conditioning: the projection of the model's own estimate, if one was trained.

    Returns:
        The folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    origin = provenance(record)
    triple.save(folder / TRIPLE_FILE, origin)
    write_lora(
        triple,
        folder / LORA_FILE,
        family=record.family,
        identity=record.identity_strength,
        motion=record.motion_strength,
        provenance=origin,
    )
    if tokens is not None:
        tokens.save(folder / TOKENS_FILE)
    if self_conditioning is not None:
        self_conditioning.save(folder / SELF_CONDITIONING_FILE)
    write_atomic(folder / RECORD_FILE, record.model_dump_json(indent=2) + "\n")
    return folder


def read_concept(folder: Path) -> Concept:
    """Reads a concept folder.

    Args:
        folder: as :func:`save_concept` left it.

    Returns:
        Its record, factors, and what was trained beside them.

    Raises:
        InputError: not a concept, a newer schema, or a damaged file.
    """
    path = folder / RECORD_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        record = ConceptRecord.model_validate(content)
    except (OSError, ValueError, ValidationError) as error:
        raise InputError(
            f"{folder} is not a concept", got=str(error), expected=f"a folder with {RECORD_FILE}"
        ) from error
    if record.schema_version != 1:
        raise InputError(f"{path} is of another version", got=str(record.schema_version), expected="1")
    beside = Companions.load(folder)
    return Concept(record, LoraTriple.load(folder / TRIPLE_FILE), beside.tokens, beside.self_conditioning)


def load_concept(
    pipeline: DiffusionPipeline, folder: str | Path, *, identity: float | None = None, motion: float | None = None
) -> ConceptRecord:
    """Puts a concept on a stock pipeline; a concept of the same name is replaced.

    Args:
        pipeline: a stock diffusers pipeline of the concept's base.
        folder: the concept.
        identity: strength of the look; None takes the recorded one.
        motion: strength of the motion; None takes the recorded one.

    Returns:
        The concept's record; its `wording.fill` puts the concept's words into a prompt.

    Raises:
        InputError: the folder is not a concept, or the concept was trained on another base.
    """
    concept = read_concept(Path(folder))
    record, stock = concept.record, _checked_pipeline(pipeline, concept.record)
    look = record.identity_strength if identity is None else identity
    parts = concept.triple.by_expert()
    tensors = {
        prefix: lora_tensors(
            part,
            family=record.family,
            identity=look,
            motion=record.motion_strength if motion is None else motion,
        )
        for prefix, part in parts.items()
    }
    # The stock loader drops keys with a warning and stops half-way on shapes, so the fit is seen to first.
    _check_concept_fits(parts, stock, f"the concept {record.name} of base {record.base}")
    unload_concept(pipeline, record.name)
    beside = Companions(concept.tokens, concept.self_conditioning).attach(pipeline, look)
    for prefix, lora in tensors.items():
        where = {"load_into_transformer_2": True} if prefix == SECOND_EXPERT else {}
        stock.load_lora_weights(lora, adapter_name=_adapter_name(record.name), **where)
    _attached.setdefault(pipeline, {})[record.name] = beside
    return record


def unload_concept(pipeline: DiffusionPipeline, name: str) -> None:
    """Takes a concept that :func:`load_concept` put on a pipeline off again; unknown names do nothing."""
    if name not in _attached.get(pipeline, {}):
        return
    _attached[pipeline].pop(name).remove()
    stock: Any = pipeline
    stock.delete_adapters(_adapter_name(name))


def _check_concept_fits(parts: Mapping[str, LoraTriple], pipeline: Any, what: str) -> None:
    second = getattr(pipeline, "transformer_2", None)
    live = {"": pipeline.transformer} | ({} if second is None else {SECOND_EXPERT: second})
    if set(parts) != set(live):
        raise InputError(
            f"{what} does not fit this base", got=f"{len(parts)} trained experts", expected=f"{len(live)} experts"
        )
    for prefix, part in parts.items():
        check_fit(part.merged(), live[prefix], what)


def _checked_pipeline(pipeline: Any, record: ConceptRecord) -> Any:
    family = FAMILIES.get(record.family)
    if family is None or type(pipeline).__name__ not in family.pipeline_classes:
        raise InputError(
            f"the concept {record.name} is for the family {record.family}",
            got=type(pipeline).__name__,
            expected=" or ".join(family.pipeline_classes) if family else ", ".join(FAMILIES),
        )
    return pipeline


def _adapter_name(name: str) -> str:
    return re.sub(r"\W", "_", name)


def provenance(record: ConceptRecord) -> dict[str, str]:
    """What a file made from a concept tells of where it came from."""
    named = (
        "name",
        "method",
        "base",
        "base_digest",
        "trigger",
        "motion_trigger",
        "class_noun",
        "seed",
        "data_digest",
        "run_id",
        "version",
    )
    steps = " ".join(f"{stage.name}:{stage.steps}" for stage in record.stages)
    loras = {"trained_with": record.loras, "started_from": record.started_from}
    told = {name: ", ".join(map(str, facts)) for name, facts in loras.items() if facts}
    told |= {"base_revision": record.base_revision} if record.base_revision else {}
    return {name: str(getattr(record, name)) for name in named} | {"stages": steps} | told
