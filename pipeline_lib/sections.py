"""The sections of a run config: each setting once, beside what it is for, with its unit and its default.

Put together, read and explained by :mod:`pipeline_lib.run_config`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema, model_validator

from pipeline_lib.records import LoraUse

# A line of text in Prefect's form, which shows two levels of models: a config's section is one already.
LoraText = Annotated[LoraUse, WithJsonSchema({"type": "string", "title": "FILE:STRENGTH"})]
_NAME = r"^[A-Za-z0-9][A-Za-z0-9 _.-]{0,63}$"


class Section(BaseModel):
    """Base of all sections: frozen, unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ConceptSection(Section):
    """What is to be learned, and from what."""

    name: str = Field(default="", description="name of the concept; empty: taken from the first input's file name")
    inputs: tuple[str, ...] = Field(
        default=(),
        description="clips, images or folders of them; in a file relative to it, in a form as the worker finds them",
    )
    subject: str = Field(
        default="", description="what the subject is, in a few words: 'grey wolf', 'plush bear with a bow'"
    )
    class_noun: str = Field(
        default="",
        description="its class in one noun: 'wolf'; empty: the last word of `subject` before 'with', 'in', 'of', …",
    )
    shot: int = Field(default=0, ge=0, description="which shot of a clip with cuts, from 1; 0: the longest one")
    captioner: str = Field(
        default="auto",
        description="auto (the base's own, else template), template (measures), or a folder of a vision-language model",
    )


class BaseSection(Section):
    """The video model that learns."""

    source: str = Field(default="pocket", min_length=1, description="'pocket', a diffusers folder, or a hub id")
    revision: str = Field(default="", description="revision of a hub id; empty: the default branch")
    loras: tuple[LoraText, ...] = Field(
        default=(),
        description="LoRA files of others that stay on the base all the while: [style.safetensors:0.8]; of two experts "
        "[high=a.safetensors, low=b.safetensors]",
    )


class MethodSection(Section):
    """How the subject is taught."""

    name: str = Field(
        default="set_and_sequence",
        min_length=1,
        description="set_and_sequence, or a baseline: two_stage, lora, textual_inversion, dreammix",
    )
    preset: str = Field(default="", description="paper, portable, pocket or demo; empty: what suits the base")
    settings: dict[str, Any] = Field(default_factory=dict, description='overrides of the preset, e.g. {"rank": 16}')
    start: tuple[LoraText, ...] = Field(
        default=(), description="LoRA files that the first stage starts from, not from zero; written as base.loras are"
    )


class TrainingSection(Section):
    """Where and how training runs; only storage in fewer bits changes what is learned beyond rounding."""

    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="auto, cpu, cuda or cuda:N")
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto", description="dtype of the frozen base; auto: bfloat16 on CUDA, float32 on the CPU"
    )
    micro_batch: int = Field(default=0, ge=0, description="samples per forward pass; 0: the whole batch at once")
    gradient_checkpointing: bool = Field(default=False, description="recompute activations to save memory")
    keep_attention: bool = Field(
        default=False, description="but not those that attention gave: faster, for a part of the memory saved"
    )
    storage: Literal["full", "fp8", "nf4"] = Field(
        default="full",
        description="of the frozen denoiser's weights; fp8: a half of bfloat16's memory, slower steps; nf4: a quarter, "
        "needs the extra `quantised`",
    )
    swapped_blocks: int = Field(
        default=0, ge=0, description="blocks of the denoiser that stay in host memory and visit the device in turn"
    )
    compile: bool = Field(default=False, description="compile the denoiser's blocks: a slow start, faster steps")
    processes: int = Field(
        default=1, ge=1, le=64, description="processes that share each step's samples, on CUDA one for each GPU"
    )
    sharded: bool = Field(
        default=False,
        description="each of the processes keeps a part of the frozen base while it trains, and fetches the others' "
        "block by block: for a base that fits on a device, but not beside what training computes",
    )
    checkpoint_every: int = Field(default=50, gt=0, description="optimizer steps between checkpoints")
    preview_every: int = Field(default=0, ge=0, description="optimizer steps between preview videos; 0: none")
    max_stage_hours: float = Field(
        default=0.0, ge=0, description="hours that a stage may train before it fails; its checkpoint stays; 0: no limit"
    )

    @model_validator(mode="after")
    def _saves_memory(self) -> TrainingSection:
        # Without recomputation the backward pass holds on to every block's full-width copy until it is reached.
        if (self.storage != "full" or self.swapped_blocks) and not self.gradient_checkpointing:
            raise ValueError("storage and swapped_blocks save nothing without gradient_checkpointing: true")
        return self

    @model_validator(mode="after")
    def _recomputes(self) -> TrainingSection:
        if self.keep_attention and not self.gradient_checkpointing:
            raise ValueError("keep_attention is about what gradient_checkpointing recomputes: set that to true")
        return self

    @model_validator(mode="after")
    def _goes_with_processes(self) -> TrainingSection:
        if self.processes > 1 and ":" in self.device:
            raise ValueError(f"{self.processes} processes take one GPU each, but device names one: {self.device}")
        if self.processes > 1 and (self.swapped_blocks or self.compile):
            raise ValueError("several processes do not go with swapped_blocks or compile: nobody has tried it")
        return self

    @model_validator(mode="after")
    def _can_be_sharded(self) -> TrainingSection:
        if self.sharded and self.processes == 1:
            raise ValueError("sharded divides the base among several processes, and there is one: set processes")
        if self.sharded and self.storage != "full":
            raise ValueError(
                f"sharded goes with storage: full alone: {self.storage} keeps a layer's weights in a form of its own, "
                "which cannot be fetched in parts"
            )
        if self.sharded and self.preview_every:
            raise ValueError("sharded goes without preview_every: no process has the whole base while it trains")
        return self


class SamplesSection(Section):
    """The videos made before and after training, with the same prompts and seeds."""

    prompts: tuple[str, ...] = Field(
        default=(),
        description="with {subject} in the subject's place; the caption itself goes first; empty: edits of it",
    )
    prompts_file: str = Field(default="", description="a file of prompts: one a line, or a YAML/JSON list")
    negative_prompt: str = Field(default="", description="empty: the base's own")
    seeds: tuple[int, ...] = Field(default=(0,), min_length=1, description="one video for each prompt and seed")
    num_inference_steps: int = Field(default=0, ge=0, description="denoising steps; 0: the base's own")
    guidance_scale: float = Field(default=0.0, ge=0, description="classifier-free guidance; 0: the base's own; 1: none")
    identity_strength: float = Field(default=1.0, ge=0, le=4, description="strength of the learned appearance")
    motion_strength: float = Field(default=1.0, ge=0, le=4, description="strength of the learned motion")


class MaskSection(Section):
    """Whether training looks at the subject alone."""

    segmenter: str = Field(
        default="none",
        min_length=1,
        description="none, auto (the base's own), a folder of a CLIPSeg model, or your own masks: a video or images; a "
        "model given here also finds the subject in samples that are scored",
    )
    subject: str = Field(default="", description="what the segmenter looks for; empty: the class noun")


ENCODERS = ("encoder", "image_encoder", "identity_encoder")
"""The roles of encoders: keys of :class:`EvaluationSection`, fields of a named base."""


class EvaluationSection(Section):
    """How the samples are scored."""

    encoder: str = Field(
        default="auto",
        description="image-text encoder: auto (the base's own, if any), none, or a local folder of a CLIP model",
    )
    image_encoder: str = Field(
        default="auto",
        description="image encoder, DINO's role: auto (the base's own, if any), none, or a local folder of a ViT",
    )
    identity_encoder: str = Field(
        default="auto",
        description="identity encoder, ArcFace's role: auto (the base's own, if any), none, or a local folder of one",
    )
    truth: str = Field(
        default="",
        description="what is known of the subject: 'gizmo:4' or 'pair:2' of the pocket world; empty: nothing",
    )


class TrackingSection(Section):
    """What is logged to MLflow; runs from Python log nothing."""

    mlflow: bool = Field(default=True, description="log the run")
    experiment: str = Field(default="mannerism", pattern=_NAME, description="MLflow experiment")
    register_model: bool = Field(default=True, description="register the final LoRA under the concept's name")
