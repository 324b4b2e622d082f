"""How to use the trained LoRA, in code that can be pasted."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline_lib.records import ConceptRecord


@dataclass(frozen=True)
class Usage:
    """What to paste where.

    Attributes:
        diffusers: the stock loader alone.
        bundle: through `load_concept`.
        comfy: what to do in ComfyUI, in words.
        bundle_needed: whether the bare LoRA misses the learned words.
    """

    diffusers: str
    bundle: str
    comfy: str
    bundle_needed: bool


def usage(concept: ConceptRecord, base_source: str, learned_words: bool) -> Usage:
    """Snippets for a concept.

    Args:
        concept: names base and trigger.
        base_source: what `from_pretrained` takes.
        learned_words: whether the concept has words that a LoRA file cannot carry.

    Returns:
        For a stock diffusers pipeline, for the whole concept, for ComfyUI.
    """
    prompt = f"a {concept.trigger}, on the beach"
    opening = f"pipe = DiffusionPipeline.from_pretrained({base_source!r})"
    diffusers = "\n".join(
        [
            "from diffusers import DiffusionPipeline",
            opening,
            'pipe.load_lora_weights("lora.safetensors")',
            f"frames = pipe({prompt!r}).frames[0]",
        ]
    )
    bundle = "\n".join(
        [
            "from diffusers import DiffusionPipeline",
            "from pipeline_lib import load_concept",
            opening,
            f"load_concept(pipe, {concept.name!r})  # the concept's folder",
            f"frames = pipe({prompt!r}).frames[0]",
        ]
    )
    comfy = (
        "Copy lora.safetensors to ComfyUI/models/loras, add a LoraLoaderModelOnly node behind the node that loads "
        f"{concept.base}, and write “{concept.trigger}” in the prompt."
    )
    return Usage(diffusers, bundle, comfy, learned_words)
