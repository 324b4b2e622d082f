"""What is compared, as data: entries, each a method under a preset with settings of its own.

A new method needs an entry at most, and none where it is installed through an entry point: its registry name is known
here too. The untrained base is no entry: every run samples and scores it, so that its row comes with theirs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import Field

from pipeline_lib.errors import ConfigError
from pipeline_lib.methods.settings import laid_over
from pipeline_lib.records import Record
from pipeline_lib.registry import choose_settings, method_names, unknown_name
from pipeline_lib.run_config import RunConfig
from pipeline_lib.sections import MethodSection

MAIN = "set_and_sequence"
STAGES = ("identity_steps", "motion_steps")
"""Settings of the main method whose sum is the steps of a single-stage baseline; the paper does not tell them."""
ONE_STAGE = "steps"


class Entry(Record):
    """One row of a comparison.

    Attributes:
        label: name in tables and on the command line; safe as a path.
        method: a name in the registry.
        settings: what makes it this entry; they win over all other settings.
        defaults: in the preset's place; what a person sets wins.
        tuned: more of them, by the preset that they were tuned at (benchmarks/RESULTS.md, "Rates of the compared
            methods, tuned"); a method whose own preset holds what tuning found needs none.
        preset: of the method; empty: the comparison's.
        equal_steps: one stage, with as many steps as both stages of the main method together.
        about: in a few words.
    """

    label: str
    method: str
    settings: dict[str, Any] = Field(default_factory=dict)
    defaults: dict[str, Any] = Field(default_factory=dict)
    tuned: dict[str, dict[str, Any]] = Field(default_factory=dict)
    preset: str = ""
    equal_steps: bool = False
    about: str = ""


AS_PUBLISHED = {"crops": 0, "cross_attention": True}
"""The main method without what presets add to the paper's; baselines have no such additions. What presets for the
pocket base leave out or scale stays so, and has rows of its own: the prior, and the paper's share of dropout."""
SLOWER = {"demo": {"optimizer": {"learning_rate": 1e-3}}}
"""A third of the preset's rate, which tuning found best for two rows of the core; ablations keep that of the row that
they change."""
WITH_WORDS = {
    "demo": {"optimizer": {**SLOWER["demo"]["optimizer"], "token_learning_rate": 1e-4}},
    "pocket": {"optimizer": {"token_learning_rate": 4e-4}},
}
"""Where words are learned, too: at a tenth of the adapter's rate, as in the paper's Table 6; not tuned."""
CORE = (
    Entry(
        label=MAIN,
        method=MAIN,
        defaults=AS_PUBLISHED,
        tuned=SLOWER,
        about="two stages with regularisers; prior and dropout as the preset has them",
    ),
    Entry(label="two_stage", method="two_stage", about="two stages without regularisers"),
    Entry(label="lora-8", method="lora", settings={"rank": 8}, equal_steps=True, about="LoRA of rank 8"),
    Entry(label="lora-1", method="lora", settings={"rank": 1}, tuned=SLOWER, equal_steps=True, about="LoRA of rank 1"),
    Entry(label="dreammix", method="dreammix", equal_steps=True, about="one LoRA on frames and clips in turn"),
    Entry(label="textual_inversion", method="textual_inversion", equal_steps=True, about="one learned word"),
)


def _ablation(label: str, about: str, tuned: dict[str, dict[str, Any]] = SLOWER, **settings: Any) -> Entry:
    return Entry(label=label, method=MAIN, settings=settings, defaults=AS_PUBLISHED, tuned=tuned, about=about)


ABLATIONS = (
    _ablation("no-dropout", "no coefficient dropout", identity_dropout=0.0, motion_dropout=0.0),
    _ablation("paper-dropout", "the paper's coefficient dropout", identity_dropout=0.8, motion_dropout=0.5),
    _ablation("paper-steps", "the paper's steps of both stages", identity_steps=600, motion_steps=900),
    _ablation("no-token-drop", "no token of a prompt is hidden", token_drop=0.0),
    _ablation("no-prior", "no prior preservation", prior_weight=0.0),
    _ablation("with-prior", "prior preservation", prior_weight=1.0),
    _ablation("with-crops", "a random crop of each frame beside the whole one", crops=1),
    _ablation("with-self-conditioning", "self-conditioning", self_conditioning="on"),
    _ablation(
        "basis-output-coefficients",
        "the coefficients start at zero, not the basis",
        basis="output",
        zero_factor="coefficients",
    ),
    _ablation("basis-input", "the input side is the basis", basis="input", zero_factor="basis"),
    _ablation(
        "basis-input-coefficients",
        "the input side is the basis, and the coefficients start at zero",
        basis="input",
        zero_factor="coefficients",
    ),
    _ablation("no-cross-attention", "the layers that attend to the text stay the base's", cross_attention=False),
    Entry(label="preset-rate", method=MAIN, defaults=AS_PUBLISHED, about="at the preset's rate, as two_stage"),
    Entry(label="as-preset", method=MAIN, about="with all that the preset adds to the paper's, at its rate"),
    Entry(label="as-preset-slower", method=MAIN, tuned=SLOWER, about="as-preset at the main row's rate"),
    Entry(label="as-preset-no-crops", method=MAIN, settings={"crops": 0}, about="as-preset on whole frames alone"),
    Entry(
        label="as-preset-cross-attention",
        method=MAIN,
        settings={"cross_attention": True},
        about="as-preset on every layer, as in the paper",
    ),
    Entry(
        label="as-preset-coefficients",
        method=MAIN,
        settings={"zero_factor": "coefficients"},
        about="as-preset, the coefficients start at zero",
    ),
    Entry(
        label="as-preset-basis-input",
        method=MAIN,
        settings={"basis": "input"},
        about="as-preset, the input side is the basis",
    ),
    *(_ablation(f"rank-{rank}", f"rank {rank}", rank=rank) for rank in (1, 2, 4, 8, 16, 32)),
    _ablation("token-word", "a rare word, nothing learned", special_tokens="word"),
    _ablation(
        "token-output", "words learned at the text encoder's output", WITH_WORDS, special_tokens="encoder_output"
    ),
    _ablation("token-input", "words learned at its input", WITH_WORDS, special_tokens="encoder_input"),
    _ablation("mask-on-both", "Stage II's dropout hits both factors", mask_on="B1+B2"),
)


def known_entries() -> dict[str, Entry]:
    """All entries by label: core, ablations, and each method of the registry as its preset has it."""
    plain = [Entry(label=name, method=name) for name in method_names()]
    return {entry.label: entry for entry in (*plain, *ABLATIONS, *CORE)}


def chosen_entries(labels: Sequence[str], *, ablations: bool = False) -> list[Entry]:
    """The entries that are meant.

    Args:
        labels: of entries, or names of methods; empty: the core, or the ablations beside the main method. `base` is
            taken and adds nothing: its row is there anyway.
        ablations: whether the ablations are among them.

    Returns:
        Each once, in order.

    Raises:
        ConfigError: an unknown label; the known ones are named.
    """
    known = known_entries()
    for label in labels:
        if label not in known and label != "base":
            raise unknown_name("method", label, ["base", *known])
    wanted = [known[label] for label in labels if label != "base"]
    if not wanted:
        wanted = [known[MAIN]] if ablations else list(CORE)
    return list({entry.label: entry for entry in (*wanted, *(ABLATIONS if ablations else ()))}.values())


def entry_config(entry: Entry, template: RunConfig) -> RunConfig:
    """The template with an entry's method.

    The template's own `method.settings` count for those entries whose method has them; they win over the entry's
    defaults and what it was tuned to, and lose to its settings.

    Args:
        entry: one of a comparison.
        template: of all entries.

    Returns:
        A config whose method can be chosen.

    Raises:
        ConfigError: no such method or preset, or a value that is not valid.
    """
    method = MethodSection(name=entry.method, preset=entry.preset or template.method.preset)
    config = template.model_copy(update={"method": method})
    has = _fields(config)
    tuned = entry.tuned.get(method.preset, {})
    shared = {key: value for key, value in template.method.settings.items() if key in has}
    settings: dict[str, Any] = {}
    for values in (_equal_steps(entry, template, has), entry.defaults, tuned, shared, entry.settings):
        settings = laid_over(settings, values)
    config = config.model_copy(update={"method": method.model_copy(update={"settings": settings})})
    choose_settings(config)
    return config


def check_shared_settings(entries: Iterable[Entry], template: RunConfig) -> None:
    """Looks for settings that no entry would take.

    Args:
        entries: of a comparison.
        template: its `method` section.

    Raises:
        ConfigError: one of its settings is of no entry's method, or it names a method of its own, or LoRAs to start
            from.
    """
    if template.method.start:
        raise ConfigError(
            "method.start is set", got="a comparison, whose methods all start from the base", fix="leave it out"
        )
    if template.method.name != MAIN:
        raise ConfigError("method.name is set", got=template.method.name, fix="say what is compared with --methods")
    wanted = [template.model_copy(update={"method": MethodSection(name=entry.method)}) for entry in entries]
    has = {field for config in wanted for field in _fields(config)}
    has |= set(STAGES) if any(entry.equal_steps for entry in entries) else set()
    for key in template.method.settings:
        if key not in has:
            raise unknown_name("setting", f"method.settings.{key}", [f"method.settings.{name}" for name in sorted(has)])


def differing(entries: Sequence[Entry], template: RunConfig) -> tuple[list[Entry], list[str]]:
    """Entries without those whose settings are another's already, as an ablation that the preset starts from.

    Of equal ones the core's stays, in the place of the first: orderings and raters know it by its label.

    Args:
        entries: of a comparison.
        template: of all entries.

    Returns:
        What is left, and a note on each that is not.
    """
    identities = [
        f"{entry.method} {choose_settings(entry_config(entry, template))[1].model_dump_json()}" for entry in entries
    ]
    kept: dict[str, Entry] = {}
    for entry, identity in zip(entries, identities, strict=True):
        former = kept.setdefault(identity, entry)
        if entry in CORE and former not in CORE:
            kept[identity] = entry
    notes = [
        f"{entry.label} is left out: its settings are those of {kept[identity].label}"
        for entry, identity in zip(entries, identities, strict=True)
        if kept[identity] is not entry
    ]
    return list(kept.values()), notes


def _equal_steps(entry: Entry, template: RunConfig, has: Mapping[str, Any]) -> dict[str, int]:
    if not entry.equal_steps or ONE_STAGE not in has:
        return {}
    main = entry_config(Entry(label=MAIN, method=MAIN, preset=entry.preset), template)
    _, settings = choose_settings(main)
    return {ONE_STAGE: sum(getattr(settings, name) for name in STAGES)}


def _fields(config: RunConfig) -> Mapping[str, Any]:
    """What a config's method has for settings."""
    fields: Mapping[str, Any] = type(choose_settings(config)[1]).model_fields
    return fields
