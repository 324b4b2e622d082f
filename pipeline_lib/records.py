"""The nouns that pass between layers: small, frozen, JSON-able, torch-free.

Arrays never live in a record; they live in files of the artifact store, which a record names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_serializer, model_validator


class Record(BaseModel):
    """Base of all records: frozen, unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class FrameRules(Record):
    """What a base model accepts: size, frame count, frame rate.

    `num_frames` must be `1 + k * frame_multiple`; sides must be multiples of `size_multiple`.
    """

    height: int = Field(gt=0)
    width: int = Field(gt=0)
    num_frames: int = Field(gt=0)
    frames_per_second: float = Field(gt=0)
    size_multiple: int = Field(default=16, gt=0)
    frame_multiple: int = Field(default=4, gt=0)


class Shot(Record):
    """A run of frames without a cut: `[start, stop)` in frames of the source as decoded."""

    start: int
    stop: int


class SourceFacts(Record):
    """What a media file is, as counted by decoding it, not as its header claims."""

    name: str
    sha256: str
    kind: Literal["video", "image"]
    container: str
    codec: str
    width: int
    height: int
    rotation: int = 0
    frames_per_second: float = 0.0
    num_frames: int = 1
    seconds: float = 0.0
    bit_depth: int = 8
    hdr: bool = False
    variable_rate: bool = False


class ClipRecord(Record):
    """One clip (or one set of images) as it will be trained on.

    `notes` tells in plain words what was dropped, cropped, padded or re-timed.
    """

    name: str
    kind: Literal["video", "images"]
    sources: tuple[SourceFacts, ...]
    height: int
    width: int
    num_frames: int
    frames_per_second: float
    shots: tuple[Shot, ...] = ()
    shot_used: int = 0
    notes: tuple[str, ...] = ()


class Caption(Record):
    """What is seen, in parts; the static prompt tells appearance, the rest is dynamic.

    `class_noun` is a bare noun ("dog"); `static` tells appearance, clothing and surroundings;
    `motion` the coarse action ("runs to the left"); the others may be empty.
    """

    class_noun: str
    static: str = ""
    motion: str = ""
    camera: str = ""
    background: str = ""
    light: str = ""

    def static_prompt(self, subject: str) -> str:
        """The Stage I prompt: `a SUBJECT, appearance, background, light`."""
        return _join(f"a {subject}", self.static, self.background, self.light)

    def full_prompt(self, subject: str) -> str:
        """The Stage II prompt: static ∪ dynamic (Set-and-Sequence, section 9)."""
        return _join(f"a {subject}", self.static, self.motion, self.background, self.light, self.camera)


class Prompt(Record):
    """One prompt to sample, with `{subject}` where the subject goes.

    `kind` tells what it tests: reconstruction, a local edit (clothing, object, colour), a global edit
    (background, light, camera, style), or a user's own.
    """

    text: str
    kind: Literal["reconstruction", "local", "global", "user"] = "user"
    negative: str = ""

    def filled(self, subject: str) -> str:
        """The prompt with the subject's words in place."""
        return self.text.replace("{subject}", subject)


class Wording(Record):
    """The words that stand for a trained concept in prompts: the same in training, in a run and afterwards.

    `subject` holds the class noun; `motion` is the word for the learned motion, "" where there is none;
    `phrases` are the motion phrases that it was trained before.
    """

    subject: str
    motion: str = ""
    phrases: tuple[str, ...] = ()

    def fill(self, text: str) -> str:
        """A prompt as the trained model reads it.

        The motion word goes before the first motion phrase of its training that the prompt holds, the
        longest phrase first, and one that stands between commas before one inside a sentence. A prompt with
        none of them gets the word at its end, after a comma: the learned motion is part of the concept.

        Args:
            text: with `{subject}` in the subject's place.

        Returns:
            The prompt without placeholders.
        """
        filled = text.replace("{subject}", self.subject)
        if not self.motion:
            return filled
        for phrase in sorted(filter(None, self.phrases), key=lambda one: (-len(one), one)):
            words = re.escape(phrase)
            for pattern in (rf"(?:^|(?<=, )){words}(?=,|$)", rf"(?<!\w){words}(?!\w)"):
                found = re.search(pattern, filled, re.IGNORECASE)
                if found:
                    return f"{filled[: found.start()]}{self.motion} {filled[found.start() :]}"
        return _join(filled, self.motion)


class StageSpec(Record):
    """One training stage, as a method plans it: torch-free, JSON, one key in the artifact store."""

    name: str
    method: str
    version: int
    data: Literal["frames", "clips"]
    steps: int = Field(gt=0)
    settings: dict[str, Any] = Field(default_factory=dict)
    after: str | None = None


class StepRecord(Record):
    """One optimizer step, as the loop reports it."""

    stage: str
    step: int
    steps: int
    metrics: Mapping[str, float]
    seconds: float


class ArtifactRef(Record):
    """A finished artifact: its kind, its key (what it was made from), its digest (what it holds)."""

    kind: str
    key: str
    digest: str


class LoraUse(Record):
    """A LoRA file that a run uses; a person may write it short: `[high=|low=]FILE[:STRENGTH]`.

    `expert` says which of a base's two denoisers takes it: the one for high noise, the one for low noise, or both.
    """

    path: str = Field(min_length=1)
    strength: float = Field(default=1.0, ge=-4, le=4, allow_inf_nan=False)
    expert: Literal["both", "high", "low"] = "both"

    @model_validator(mode="before")
    @classmethod
    def _long_form(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        found = re.fullmatch(r"(?:(high|low)=)?(.+?)(?::([+-]?(?:\d+\.?\d*|\.\d+)))?", value)
        if found is None:
            raise ValueError("a LoRA is written FILE, or FILE:STRENGTH, e.g. style.safetensors:0.8")
        expert, path, strength = found.groups()
        return {"path": path, "strength": float(strength or 1), "expert": expert or "both"}

    @model_serializer
    def _short_form(self) -> str:
        return f"{'' if self.expert == 'both' else f'{self.expert}='}{self.path}:{self.strength!r}"


class LoraFact(Record):
    """What is remembered of a LoRA file that was used: its name, what it holds, and how it was used."""

    name: str
    digest: str
    strength: float
    expert: Literal["both", "high", "low"] = "both"

    @property
    def identity(self) -> str:
        """What it adds to a model, without the file's name: a part of keys."""
        return f"{self.digest} x{self.strength!r} {self.expert}"

    def __str__(self) -> str:
        place = "" if self.expert == "both" else f", {self.expert}-noise expert"
        return f"{self.name} (strength {self.strength:g}{place})"


class SampleRecord(Record):
    """One generated video and everything that made it."""

    file: str
    prompt: Prompt
    filled_prompt: str
    seed: int
    model: Literal["base", "personalised"]
    identity_strength: float = 1.0
    motion_strength: float = 1.0
    num_frames: int
    frames_per_second: float


class Score(Record):
    """One number of one sample, traceable. `value` is None, with a `reason`, where none exists."""

    metric: str
    value: float | None
    reason: str = ""
    direction: Literal["higher", "lower", "closer"]
    low: float
    high: float
    encoder: str = ""
    encoder_digest: str = ""
    preprocessing: str = ""
    frames_per_second: float = 0.0


class Comparison(Record):
    """One metric of a challenger against the champion, or the untrained base.

    `low` and `high` bound the mean difference, challenger minus other, such that all metrics of a decision lie within
    theirs 95 times in 100; they are None where there is no interval. Means are over the pairs. `num_pairs` is 0 where
    the two share no prompt and seed: then their own intervals were held side by side.
    """

    metric: str
    challenger: float
    other: float
    difference: float
    low: float | None = None
    high: float | None = None
    num_pairs: int = 0
    verdict: Literal["better", "worse", "even", "unknown"]


class Decision(Record):
    """What the gate (:mod:`pipeline_lib.metrics.gate`) says, and the numbers that it rests on.

    `against` is "base" where there was no champion. `reason` is a sentence without a subject.
    """

    passed: bool
    against: Literal["champion", "base"]
    reason: str
    comparisons: tuple[Comparison, ...] = ()


class ConceptRecord(Record):
    """`concept.json`: a trained concept's provenance; it sits beside `lora.safetensors`.

    `trigger` are the words for the subject, class noun included; `motion_trigger` is the word for the
    learned motion, "" where none was learned; :attr:`wording` puts both into a prompt. `loras` were on the base all
    the while and are no part of the concept; `started_from` are what its first stage began with, and went into it.
    """

    schema_version: int = 1
    name: str
    method: str
    base: str
    base_revision: str = Field(default="", exclude_if=lambda revision: not revision)
    base_digest: str
    family: str
    trigger: str
    motion_trigger: str = ""
    class_noun: str
    captions: tuple[Caption, ...]
    stages: tuple[StageSpec, ...]
    rank: int
    basis: Literal["output", "input"] = "output"
    identity_strength: float = 1.0
    motion_strength: float = 1.0
    seed: int
    data_digest: str
    run_id: str = ""
    version: str = ""
    loras: tuple[LoraFact, ...] = Field(default=(), exclude_if=lambda loras: not loras)
    started_from: tuple[LoraFact, ...] = Field(default=(), exclude_if=lambda loras: not loras)

    @field_validator("name")
    @classmethod
    def _no_path(cls, name: str) -> str:
        # A concept may be a stranger's, and files are named after it.
        if not re.fullmatch(r"\w[\w .-]{0,99}", name):
            raise ValueError(
                "a concept's name is at most 100 letters, digits, spaces and `_.-`, a letter or digit first"
            )
        return name

    @property
    def wording(self) -> Wording:
        """How the concept is spoken of in prompts."""
        phrases = tuple(caption.motion for caption in self.captions)
        return Wording(subject=self.trigger, motion=self.motion_trigger, phrases=phrases)


def _join(*parts: str) -> str:
    return ", ".join(part.strip() for part in parts if part.strip())
