"""A captioner over any image- or video-text model that `AutoModelForImageTextToText` loads."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForImageTextToText, AutoProcessor
from transformers.video_utils import VideoMetadata

from pipeline_lib.captions.captioner import Captioner
from pipeline_lib.captions.fields import FIELDS, clean_noun, read_fields
from pipeline_lib.captions.template import TemplateCaptioner
from pipeline_lib.errors import InputError
from pipeline_lib.records import Caption

QUESTION = (
    "Describe this {kind} of a {subject} as JSON with these string fields and nothing else: "
    '"static" (how the {subject} looks and what it wears), "motion" (how it moves, a few words), '
    '"camera" (how the camera moves), "background" (where it is), "light" (the lighting). '
    'Write "none" where nothing can be said.'
)
_VALUES = tuple(field for field in FIELDS if field != "class_noun")


@dataclass(frozen=True)
class _Answer:
    """What a model said: its text, how long that was after each token, and each token's log-probability."""

    text: str
    ends: tuple[int, ...]
    logs: tuple[float, ...]

    def confidence(self, value: str) -> float:
        """Geometric mean of the probabilities of the tokens that spell a value; 1 where it is not found as such."""
        start = self.text.find(f'"{value}"') if value else -1
        starts = (0, *self.ends[:-1])
        inside = [
            log
            for first, end, log in zip(starts, self.ends, self.logs, strict=True)
            if start >= 0 and end > start + 1 and first < start + 1 + len(value)
        ]
        return math.exp(sum(inside) / len(inside)) if inside else 1.0


class VLMCaptioner:
    """Asks a vision-language model for the caption's fields, and takes from its answer what can be read.

    The answer is untrusted text: it is cleaned and cut. Fields that cannot be read come from the
    fallback captioner, and :attr:`notes` says which.

    Args:
        model_folder: a transformers folder with model, processor and chat template.
        fallback: fills what the model did not answer; by default the template captioner.
        device: where the model runs; in bfloat16 but on the CPU.
        num_frames: at most so many frames, evenly spread, are shown to the model.
        max_new_tokens: longest answer.
        least_confidence: a field whose tokens the model gives a lower probability, in the geometric mean, counts
            as not answered; 0 takes every answer.

    Raises:
        InputError: the folder holds no such model.
    """

    def __init__(
        self,
        model_folder: Path,
        fallback: Captioner | None = None,
        *,
        device: str = "cpu",
        num_frames: int = 16,
        max_new_tokens: int = 256,
        least_confidence: float = 0.0,
    ) -> None:
        dtype = torch.float32 if device == "cpu" else torch.bfloat16
        try:
            self._processor: Any = AutoProcessor.from_pretrained(
                model_folder, local_files_only=True, trust_remote_code=False
            )
            model: Any = AutoModelForImageTextToText.from_pretrained(
                model_folder, dtype=dtype, local_files_only=True, use_safetensors=True, trust_remote_code=False
            )
        except (OSError, ValueError, KeyError) as error:
            raise InputError(
                f"{model_folder} holds no captioner that can be loaded",
                got=str(error).splitlines()[0][:200],
                expected="a transformers folder of an image-text-to-text model with its processor",
                fix="fetch the whole folder, or use the template captioner",
            ) from error
        self._model: Any = model.to(device).eval()
        self._fallback: Captioner = fallback or TemplateCaptioner()
        self._device = device
        self._num_frames, self._max_new_tokens = num_frames, max_new_tokens
        self._least_confidence = least_confidence
        self.name = f"vlm:{Path(model_folder).name}"
        self.notes: tuple[str, ...] = ()

    def caption(self, frames: NDArray[np.uint8], subject: str, *, unordered: bool = False) -> Caption:
        """See :class:`~pipeline_lib.captions.captioner.Captioner`."""
        noun = clean_noun(subject)
        said = self._answer(frames, noun, unordered)
        found = {name: value for name, value in read_fields(said.text).items() if name in _VALUES}
        unsure = {name for name, value in found.items() if said.confidence(value) < self._least_confidence}
        found = {name: value for name, value in found.items() if name not in unsure}
        if len(frames) == 1 or unordered:
            found |= {"motion": "", "camera": ""}
        missing = [name for name in _VALUES if name not in found]
        self.notes = ()
        if missing:
            rest = self._fallback.caption(frames, noun, unordered=unordered)
            found |= {name: getattr(rest, name) for name in missing}
            told = "gave no field that can be read" if len(missing) == len(_VALUES) else "left fields out"
            told = "is not sure of what it sees" if unsure else told
            self.notes = (f"{self.name} {told}: {', '.join(missing)} from the {self._fallback.name} captioner",)
        return Caption(class_noun=noun, **found)

    @torch.inference_mode()
    def _answer(self, frames: NDArray[np.uint8], noun: str, unordered: bool) -> _Answer:
        inputs = self._inputs(frames, noun, unordered).to(self._device, self._model.dtype)
        made = self._model.generate(
            **inputs,
            max_new_tokens=self._max_new_tokens,
            do_sample=False,
            output_scores=True,
            return_dict_in_generate=True,
        )
        tokens = made.sequences[0, inputs["input_ids"].shape[1] :]
        logs = [
            float(scores[0].float().log_softmax(-1)[token]) for scores, token in zip(made.scores, tokens, strict=True)
        ]
        decode = self._processor.batch_decode
        ends = decode([tokens[: count + 1] for count in range(len(tokens))], skip_special_tokens=True)
        return _Answer(ends[-1] if ends else "", tuple(len(text) for text in ends), tuple(logs))

    def _inputs(self, frames: NDArray[np.uint8], noun: str, unordered: bool = False) -> Any:
        picks = np.linspace(0, len(frames) - 1, min(self._num_frames, len(frames))).round().astype(int)
        shown = [frames[pick] for pick in picks]
        moving = len(shown) > 1 and not unordered
        # A model without a video processor gets the frames as pictures.
        video = moving and getattr(self._processor, "video_processor", None) is not None
        question = QUESTION.format(kind="video" if moving else "picture", subject=noun)
        media = [{"type": "video"}] if video else [{"type": "image"} for _ in shown]
        message = [{"role": "user", "content": [*media, {"type": "text", "text": question}]}]
        prompt = self._processor.apply_chat_template(message, add_generation_prompt=True)
        if not video:
            return self._processor(images=shown, text=prompt, return_tensors="pt")
        # Frames are chosen here already: the processor must not choose again.
        facts = VideoMetadata(
            total_num_frames=len(shown), fps=float(self._num_frames), frames_indices=list(range(len(shown)))
        )
        return self._processor(
            videos=[np.stack(shown)], text=prompt, return_tensors="pt", video_metadata=[[facts]], do_sample_frames=False
        )
