"""How to use the trained LoRA, in code that can be pasted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from textwrap import wrap

from pipeline_lib.report.inputs import ReportInputs

_LINE = 48


@dataclass(frozen=True)
class Usage:
    """What to paste where.

    Attributes:
        diffusers: the stock loader alone.
        bundle: through `load_concept`.
        comfy: what to do in ComfyUI, in words; empty where it cannot load the base.
        bundle_needed: whether the bare LoRA misses the learned words.
    """

    diffusers: str
    bundle: str
    comfy: str
    bundle_needed: bool


def usage(inputs: ReportInputs) -> Usage:
    """Snippets for a concept, with paths as seen from the page: the concept's folder lies beside it.

    Args:
        inputs: name the base, the concept's words and what a stock pipeline must be called with.

    Returns:
        For a stock diffusers pipeline, for the whole concept, for ComfyUI.
    """
    concept = inputs.concept
    opening = _opening(inputs)
    trained_with = [f"# put on first what it was trained with: {fact}" for fact in concept.loras]
    sampling = _sampling(concept.wording.fill("a {subject}, on the beach"), inputs.call)
    diffusers = [
        "from diffusers import DiffusionPipeline",
        *opening,
        *trained_with,
        *_loading(inputs.loras),
        *sampling,
    ]
    bundle = [
        "from diffusers import DiffusionPipeline",
        "from pipeline_lib import load_concept",
        *opening,
        *trained_with,
        'load_concept(pipe, "concept")  # the folder beside this page',
        *sampling,
    ]
    comfy = f"{_comfy(inputs)}, and write “{concept.trigger}” in the prompt."
    return Usage("\n".join(diffusers), "\n".join(bundle), comfy if inputs.in_comfy else "", inputs.learned_words)


def _opening(inputs: ReportInputs) -> list[str]:
    source = repr(inputs.base_source or inputs.concept.base)
    revision = f", revision={inputs.base_revision!r}" if inputs.base_revision else ""
    if not inputs.stock_changes:
        return [f"pipe = DiffusionPipeline.from_pretrained({source}{revision})"]
    return [f"base = {source}", f"pipe = DiffusionPipeline.from_pretrained(base{revision})", *inputs.stock_changes]


def _loading(loras: tuple[str, ...]) -> list[str]:
    first, *second = [f"concept/{name}" for name in loras]
    return [
        f'pipe.load_lora_weights("{first}")  # beside this page',
        *(f'pipe.load_lora_weights("{name}", load_into_transformer_2=True)' for name in second),
    ]


def _comfy(inputs: ReportInputs) -> str:
    files = " and ".join(f"concept/{name}" for name in inputs.loras)
    where = f"the node that loads {inputs.concept.base}"
    if len(inputs.loras) > 1:
        where = f"each of the two nodes that load the high-noise and the low-noise model of {inputs.concept.base}"
    return f"Copy {files} to ComfyUI/models/loras, add a LoraLoaderModelOnly node behind {where}"


def _sampling(prompt: str, call: Mapping[str, float | str]) -> list[str]:
    if not call:
        return [f"frames = pipe({prompt!r}).frames[0]"]
    numbers = {name: value for name, value in call.items() if not isinstance(value, str)}
    given = wrap(", ".join(f"{name}={value!r}" for name, value in numbers.items()) + ",", _LINE)
    words = [f"{name}={value!r}," for name, value in call.items() if isinstance(value, str)]
    return [
        "settings = dict(",
        *(f"    {line}" for line in [*given, *words]),
        ")",
        f"frames = pipe({prompt!r}, **settings).frames[0]",
    ]
