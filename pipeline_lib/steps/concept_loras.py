"""The LoRAs that a concept was trained with beside those that its base will have when videos are made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline_lib.errors import InputError, PipelineError
from pipeline_lib.models.lora_file import used_loras
from pipeline_lib.records import ConceptRecord, LoraFact, LoraUse
from pipeline_lib.registry import BASES, base_source, loras_on_base
from pipeline_lib.run_config import RunConfig
from pipeline_lib.sections import BaseSection
from pipeline_lib.steps.concepts import FoundConcept


@dataclass(frozen=True)
class ConceptLoras:
    """What to do about the LoRAs of a concept.

    Attributes:
        uses: to put on the base, beside those that its name stands for.
        missing: what the concept was trained with and the base will not have.
        advice: how a person puts those there.
    """

    uses: tuple[LoraUse, ...] = ()
    missing: tuple[LoraFact, ...] = ()
    advice: str = ""


def loras_for(found: FoundConcept, record: ConceptRecord, base: str = "") -> ConceptLoras:
    """The LoRAs that make a base what it was when a concept was trained.

    Args:
        found: the concept; its run's LoRA files are looked for where that run had them.
        record: of the concept.
        base: that a person named; empty: the one that the concept was trained on.

    Returns:
        The run's own LoRAs where with them nothing is missing, else none.

    Raises:
        InputError: no base was named, and the name that the concept was trained on stands for other LoRAs now; or the
            base is not part of this installation.
    """
    source = base or record.base
    config = _config(source)
    if source in BASES:
        base_source(config)
    of_name = tuple(lora.fact for lora in used_loras(loras_on_base(config)))
    changed, missing = _without(of_name, record.loras), _without(record.loras, of_name)
    advice = _advice(changed, missing, source)
    if changed and not base:
        raise InputError(
            f"the base {source!r} is not what it was when {record.name} was trained",
            got=_named(changed),
            expected=_named(missing) or "no LoRA",
            fix=f"to take it as it is now, say --base {source}; to have it as it was, {advice}",
        )
    own = found.config.base.loras
    there = _facts(own)
    if not _without(missing, there) and not _without(there, missing):
        return ConceptLoras(own)
    if base and not _without(missing, _facts(loras_on_base(_config(record.base)))):
        return ConceptLoras((), missing, f"say --base {record.base}, which has them")
    return ConceptLoras((), missing, advice)


def _advice(changed: Sequence[LoraFact], missing: Sequence[LoraFact], source: str) -> str:
    if not changed:
        return "say where they are with --lora FILE:STRENGTH"
    # With the name, its LoRAs of today would be merged beside the former ones.
    former = "".join(f" --lora {_spelt(fact)}" for fact in missing)
    return f"say --base {_plain(source)}{former}{', with what FILE was' if former else ''}"


def _spelt(fact: LoraFact) -> str:
    """As `--lora` takes it, whatever the file is called now."""
    return f"{'' if fact.expert == 'both' else f'{fact.expert}='}FILE:{fact.strength!r}"


def _config(source: str) -> RunConfig:
    return RunConfig(base=BaseSection(source=source))


def _facts(uses: Sequence[LoraUse]) -> tuple[LoraFact, ...]:
    try:
        return tuple(lora.fact for lora in used_loras(uses))
    except PipelineError:  # the files may be gone
        return ()


def _without(facts: Sequence[LoraFact], others: Sequence[LoraFact]) -> tuple[LoraFact, ...]:
    """Those that the others have not, whatever their files are called."""
    left = Counter(other.identity for other in others)
    kept = []
    for fact in facts:
        left[fact.identity] -= 1
        if left[fact.identity] < 0:
            kept.append(fact)
    return tuple(kept)


def _plain(source: str) -> str:
    """A name of the same weights without LoRAs, or their folder."""
    folder = BASES[source].folder
    return next((name for name, other in BASES.items() if other.folder == folder and not other.loras), str(folder))


def _named(facts: Sequence[LoraFact]) -> str:
    return ", ".join(f"{fact}, SHA-256 {fact.digest[:12]}" for fact in facts)
