"""A concept and the LoRAs on its base: what is put there again, and advice that works where they are not at hand."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
import torch

from pipeline_lib.errors import InputError
from pipeline_lib.models.lora_file import used_loras
from pipeline_lib.records import Caption, ConceptRecord, LoraUse
from pipeline_lib.registry import BASES, loras_on_base
from pipeline_lib.run_config import RunConfig
from pipeline_lib.sections import BaseSection
from pipeline_lib.steps.concept_loras import ConceptLoras, loras_for
from pipeline_lib.steps.concepts import FoundConcept
from pipeline_lib.storage.tensors import save_tensors

SIBLING = "pocket-outline"
UNKNOWN = RunConfig()


def lora(path: Path, value: float) -> Path:
    pair = {"lora_A.weight": torch.full((1, 2), value), "lora_B.weight": torch.ones(2, 1)}
    save_tensors(path, {f"transformer.blocks.0.attn1.to_q.{end}": tensor for end, tensor in pair.items()})
    return path


@pytest.fixture
def sibling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = lora(tmp_path / "lora.safetensors", 1.0)
    monkeypatch.setitem(BASES, SIBLING, BASES[SIBLING]._replace(loras=(path,)))
    return path


def config_of(source: str, loras: tuple[LoraUse, ...] = ()) -> RunConfig:
    return RunConfig(base=BaseSection(source=source, loras=loras))


def trained_on(config: RunConfig) -> ConceptRecord:
    return ConceptRecord(
        name="rex",
        method="lora",
        base=config.base.source,
        base_digest="0",
        family="wan",
        trigger="zwx dog",
        class_noun="dog",
        captions=(Caption(class_noun="dog"),),
        stages=(),
        rank=1,
        seed=0,
        data_digest="1",
        loras=tuple(lora.fact for lora in used_loras(loras_on_base(config))),
    )


def asked(record: ConceptRecord, config: RunConfig, base: str = "") -> ConceptLoras:
    return loras_for(FoundConcept("rex", Path("rex"), config), record, base)


def on_base(source: str, uses: tuple[LoraUse, ...]) -> list[str]:
    return [one.fact.identity for one in used_loras(loras_on_base(config_of(source, uses)))]


def flags(advice: str, file: Path) -> tuple[str, tuple[LoraUse, ...]]:
    """Base and LoRAs that a person gives who follows an advice."""
    words = [word.rstrip(",").replace("FILE", str(file)) for word in shlex.split(advice)]
    given = [words[at + 1] for at, word in enumerate(words) if word == "--lora"]
    return words[words.index("--base") + 1], tuple(LoraUse.model_validate(text) for text in given)


@pytest.mark.parametrize("known", [True, False])
def test_what_the_name_of_a_base_stands_for_is_not_missed(sibling: Path, known: bool) -> None:
    config = config_of(SIBLING)
    found = asked(trained_on(config), config if known else UNKNOWN)
    assert (found.uses, found.missing) == ((), ())


def test_the_runs_own_are_put_on_again_and_missed_when_they_are_gone(sibling: Path, tmp_path: Path) -> None:
    own = LoraUse(path=str(lora(tmp_path / "style.safetensors", 2.0)), strength=0.5)
    config = config_of(SIBLING, (own,))
    record = trained_on(config)
    assert asked(record, config) == ConceptLoras((own,))
    for other in (UNKNOWN, config_of(SIBLING, (LoraUse(path=str(tmp_path / "gone.safetensors")),))):
        found = asked(record, other)
        assert [fact.name for fact in found.missing] == ["style.safetensors"] and not found.uses
        assert found.advice == "say where they are with --lora FILE:STRENGTH"


def test_a_base_that_was_changed_is_told_with_two_ways_out(sibling: Path, tmp_path: Path) -> None:
    record = trained_on(config_of(SIBLING))
    former = sibling.rename(tmp_path / "former.safetensors")
    lora(sibling, 3.0)
    with pytest.raises(InputError, match=f"'{SIBLING}' is not what it was when rex was trained") as error:
        asked(record, UNKNOWN)
    now, then = str(error.value).split("to have it as it was, ")
    assert record.loras[0].digest[:12] in now and f"say --base {SIBLING};" in now
    base, uses = flags(then, former)
    assert on_base(base, uses) == [fact.identity for fact in record.loras]
    assert not asked(record, config_of(base, uses), base).missing
    found = asked(record, UNKNOWN, SIBLING)
    assert found.missing == record.loras and flags(found.advice, former) == (base, uses)


def test_a_base_that_was_given_another_name_is_told(sibling: Path) -> None:
    record = trained_on(config_of("pocket"))
    assert asked(record, UNKNOWN, SIBLING).missing == (), "what was learned on one can be put on the other"
    with pytest.raises(InputError, match=r"expected no LoRA.*say --base pocket$"):
        asked(record.model_copy(update={"base": SIBLING}), UNKNOWN)


def test_a_base_without_what_a_concept_was_trained_with_is_told(sibling: Path) -> None:
    config = config_of(SIBLING)
    record = trained_on(config)
    for base in ("pocket", str(BASES["pocket"].folder)):
        found = asked(record, config, base)
        assert found.missing == record.loras and found.advice == f"say --base {SIBLING}, which has them"
