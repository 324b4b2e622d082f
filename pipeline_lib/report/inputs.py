"""What a report is made from: records, scores, and the paths of pictures and videos to embed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from pipeline_lib.metrics import ScoredSample
from pipeline_lib.records import ArtifactRef, Caption, ClipRecord, ConceptRecord, SampleRecord, StepRecord


@dataclass(frozen=True, kw_only=True)
class ReportClip:
    """One clip, or one set of images, that the concept was taught from.

    Attributes:
        record: what it is.
        files: the mp4 of a clip, as it was trained on; or the pictures of a set.
        reconstructions: the same after the autoencoder: the mp4 of a clip's first window, or pictures.
        caption: what it was captioned as.
    """

    record: ClipRecord
    files: tuple[Path, ...]
    reconstructions: tuple[Path, ...] = ()
    caption: Caption | None = None


@dataclass(frozen=True, kw_only=True)
class ReportSample:
    """One generated video.

    Attributes:
        record: what made it; `record.model` decides whether it stands under base or personalised.
        file: its mp4.
    """

    record: SampleRecord
    file: Path


@dataclass(frozen=True, kw_only=True)
class ReportStage:
    """What is known of a training stage besides its curve.

    Attributes:
        seconds: how long it took; 0 where it is not known.
        figures: numbers about its result, e.g. `effective_rank`; `validation_held_out` (1 or 0) tells whether
            its validation loss was on data that it was not trained on.
    """

    seconds: float = 0.0
    figures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ReportInputs:
    """Everything that the page shows. Only concept, date and duration are needed; empty sections are left out.

    Attributes:
        concept: the trained concept.
        created: when the run ended.
        seconds: how long it took; 0 where it is not known.
        clips: what was learned from, the reference first.
        samples: videos of the base and of the personalised model. A pair has the same `prompt.text` and seed.
        scores: rows `base`, `personalised`, `ceiling`, and others such as `lora` (the bare LoRA); their prompt
            and seed are those of `samples`.
        training: every step of every stage, as the loop reported them; metrics `loss`, `gradient_norm`,
            `validation_loss` (at fixed sigma quantiles) and the loss's parts are drawn.
        stages: by name, for those in `training`.
        settings: the run's config as plain values.
        provenance: further lines, label to value.
        artifacts: what the run is made of in the artifact store.
        notes: what a person should know: what media did to the clips, warnings.
        base_source: what `from_pretrained` takes (folder or hub id); the concept's `base` when empty.
        base_revision: of a hub id; empty: the default branch.
        call: what a stock pipeline of the base must be called with, besides the prompt.
        stock_changes: lines of Python that a stock pipeline `pipe`, read from `base`, needs before it is called.
        loras: file names of the concept's plain LoRA, or those of its two experts, the high-noise one's first.
        in_comfy: whether ComfyUI can load the base.
        learned_words: whether the concept needs `load_concept` for what a LoRA file cannot carry: learned words,
            self-conditioning.
    """

    concept: ConceptRecord
    created: datetime
    seconds: float
    clips: tuple[ReportClip, ...] = ()
    samples: tuple[ReportSample, ...] = ()
    scores: tuple[ScoredSample, ...] = ()
    training: tuple[StepRecord, ...] = ()
    stages: Mapping[str, ReportStage] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, str] = field(default_factory=dict)
    artifacts: tuple[ArtifactRef, ...] = ()
    notes: tuple[str, ...] = ()
    base_source: str = ""
    base_revision: str = ""
    call: Mapping[str, float | str] = field(default_factory=dict)
    stock_changes: tuple[str, ...] = ()
    loras: tuple[str, ...] = ("lora.safetensors",)
    in_comfy: bool = True
    learned_words: bool = False
