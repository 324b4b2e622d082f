"""Memory of a run, phase by phase, on its device and on the host."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pipeline_lib.records import Record, StageSpec
from pipeline_lib.sections import TrainingSection
from pipeline_lib.steps.rehearsal import Lesson, Rehearsal, Work
from pipeline_lib.steps.weightless_stage import step_samples

FACTOR_BYTES, LEARNING_BYTES = 4, 8  # a float32 factor; of one that learns AdamW's two moments besides


class Phase(Record):
    """What one phase of a run holds at its peak.

    `device` are bytes where the base computes, by part; `host` those in host memory beside them, also where the device
    is the CPU. The interpreter and its libraries are in neither.
    """

    name: str
    device: dict[str, int]
    host: dict[str, int]

    @property
    def on_device(self) -> int:
        """Bytes on the device."""
        return sum(self.device.values())

    @property
    def on_host(self) -> int:
        """Bytes on the host beside it."""
        return sum(self.host.values())


@dataclass(frozen=True, kw_only=True)
class Load:
    """What a run asks of a base, whatever its memory settings.

    Attributes:
        stages: in order.
        denoisers: how many the base has.
        encoders: names of the text encoders.
        cached: bytes of latents and text, in host memory.
        denoised: samples in one pass of sampling.
        frames: of the longest clip that is encoded.
        on_cpu: whether the device is the CPU.
    """

    stages: Sequence[StageSpec]
    denoisers: int
    encoders: Sequence[str]
    cached: int
    denoised: int
    frames: int
    on_cpu: bool


def phases(rehearsal: Rehearsal, load: Load, training: TrainingSection) -> list[Phase]:
    """Encoding, every stage, sampling.

    Args:
        rehearsal: of the base.
        load: of the run.
        training: its memory settings.

    Returns:
        In the order of the run. A base is loaded before its first samples and stays, so its denoisers are in all, whole
        but where it trains in parts; an encoder is on the device while it works.
    """
    weights, swapped = denoiser_bytes(rehearsal, load, training)
    decode, autoencoder = rehearsal.decoding()
    texts = [rehearsal.reading(part) for part in load.encoders]
    kept = {"denoiser": weights}
    away = {"swapped blocks": swapped} if swapped else {}
    encoders = sum(size for _, size in texts) + autoencoder
    host = {**away, "encoders": 0 if load.on_cpu else encoders}
    reading = [(work, encoders if load.on_cpu else size) for work, size in texts]
    encode = (rehearsal.encoding(load.frames), encoders if load.on_cpu else autoencoder)
    sample = (decode, encoders if load.on_cpu else autoencoder)
    denoise = (rehearsal.denoising(load.denoised), encoders if load.on_cpu else 0)
    adapter = max((adapter_bytes(rehearsal, load, stage)[0] for stage in load.stages), default=0)
    return [
        Phase(name="encode", device={**kept, **_largest([*reading, encode])}, host={**host, "cached": load.cached}),
        *(_training(rehearsal, load, training, stage) for stage in load.stages),
        Phase(name="samples", device={**kept, "adapter": adapter, **_largest([*reading, denoise, sample])}, host=host),
    ]


def denoiser_bytes(rehearsal: Rehearsal, load: Load, training: TrainingSection) -> tuple[int, int]:
    """Bytes of all denoisers on the device, one visiting block of each included, and of their blocks on the host."""
    size, blocks = rehearsal.denoiser_bytes(training.storage)
    away = blocks[len(blocks) - min(training.swapped_blocks, len(blocks)) :]
    present = size - sum(away) + max(away, default=0)
    return present * load.denoisers, sum(away) * load.denoisers


def bytes_in_parts(rehearsal: Rehearsal, load: Load, training: TrainingSection) -> int:
    """Bytes of all denoisers on the device of one process while they train, divided where the base is sharded.

    What is outside of the blocks is whole during a pass, and two blocks are: one computes, the next one is fetched.
    """
    whole = denoiser_bytes(rehearsal, load, training)[0]
    if not training.sharded:
        return whole
    size, blocks = rehearsal.denoiser_bytes(training.storage)
    fetched = size - sum(blocks) + sum(sorted(blocks)[-2:])
    return min(whole, (-(-size // training.processes) + fetched) * load.denoisers)


def adapter_bytes(rehearsal: Rehearsal, load: Load, stage: StageSpec) -> tuple[int, int]:
    """Bytes of a stage's factors on all denoisers; and of factors, dropout masks and moments, without gradients."""
    factors, learning, masks = rehearsal.factors(stage)
    held = FACTOR_BYTES * factors
    return held * load.denoisers, (held + FACTOR_BYTES * masks + LEARNING_BYTES * learning) * load.denoisers


def lesson_of(stage: StageSpec, training: TrainingSection) -> Lesson:
    """A micro-batch of a stage as one process trains it, the last of a step where there are several."""
    mine = -(-step_samples(stage) // training.processes)
    samples = min(training.micro_batch or mine, mine)
    return Lesson(
        stage=stage,
        samples=samples,
        again=samples < mine,
        checkpointing=training.gradient_checkpointing,
        keep_attention=training.keep_attention,
        storage=training.storage,
    )


def _training(rehearsal: Rehearsal, load: Load, training: TrainingSection, stage: StageSpec) -> Phase:
    work = rehearsal.training(lesson_of(stage, training))
    _, learning, _ = rehearsal.factors(stage)
    others = FACTOR_BYTES * learning * (load.denoisers - 1)  # gradients of the expert that was not gone through
    device = {
        "denoiser": bytes_in_parts(rehearsal, load, training),
        "adapter": adapter_bytes(rehearsal, load, stage)[1],
        "activations and gradients": int(work.memory) + others,
    }
    encoder_learns = stage.settings.get("words_at") == "encoder_input"  # the encoder runs in every step
    if encoder_learns:
        device["text encoder"] = max((rehearsal.reading(part)[1] for part in load.encoders), default=0)
    swapped = denoiser_bytes(rehearsal, load, training)[1]
    host = {"cached": load.cached, **({"swapped blocks": swapped} if swapped else {})}
    return Phase(name=f"train-{stage.name}", device=device, host=host)


def _largest(moments: Iterable[tuple[Work, int]]) -> dict[str, int]:
    """The moment that takes most: work and what of the encoders is there."""
    work, size = max(moments, key=lambda moment: moment[0].memory + moment[1])
    return {"encoders": size, "activations": int(work.memory)}
