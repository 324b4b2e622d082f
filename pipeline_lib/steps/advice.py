"""Which settings make a run fit, in the order of what they cost; or which may go, where there is room."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from pipeline_lib.records import Record
from pipeline_lib.sections import TrainingSection


class Need(Record):
    """The most bytes that any phase needs: on the device, and on the host beside it."""

    device: int
    host: int

    def fits(self, room: Need) -> bool:
        """Whether there is as much."""
        return self.device <= room.device and self.host <= room.host


class Advice(Record):
    """A setting to change, e.g. `training.micro_batch=2`, what the run needs then, and whether that fits."""

    settings: dict[str, Any]
    need: Need
    fits: bool


Asks = Callable[[TrainingSection], Need]


@dataclass(frozen=True)
class Scope:
    """How far settings can go with a base and its stages.

    Attributes:
        blocks: of a denoiser.
        samples: of one step, the prior's included; the most of all stages.
        shardable: whether the processes could each keep a part of the base.
    """

    blocks: int
    samples: int
    shardable: bool = False


def advice(training: TrainingSection, room: Need, scope: Scope, needs: Asks) -> list[Advice]:
    """What to change.

    Args:
        training: as the config has it.
        room: bytes that are free.
        scope: how far settings can go.
        needs: counts a run with other settings.

    Returns:
        Where it does not fit, settings each on top of those before it, the last of which fits, or nothing does. Where
        it fits, those that cost time and could go, each by itself.
    """
    if needs(training).fits(room):
        return [found for change in _luxuries(training) if (found := _tried(training, change, room, needs)).fits]
    steps: list[Advice] = []
    changed: dict[str, Any] = {}
    for choices in _savings(training, scope):
        # The first choice that fits; else the last one, which saves most.
        for change in choices:
            found = _tried(training, {**changed, **change}, room, needs)
            if found.fits:
                break
        steps.append(found)
        changed = found.settings
        if found.fits:
            break
    return steps


def _tried(training: TrainingSection, change: dict[str, Any], room: Need, needs: Asks) -> Advice:
    need = needs(training.model_copy(update=change))
    return Advice(settings=change, need=need, fits=need.fits(room))


def _savings(training: TrainingSection, scope: Scope) -> Iterator[list[dict[str, Any]]]:
    if not training.gradient_checkpointing:
        yield [{"gradient_checkpointing": True, "keep_attention": True}, {"gradient_checkpointing": True}]
    elif training.keep_attention:
        yield [{"keep_attention": False}]
    now = training.micro_batch or scope.samples
    halves = [now >> power for power in range(1, now.bit_length())]
    if halves:
        yield [{"micro_batch": size} for size in halves]
    if training.storage == "full" and not training.sharded:
        in_parts = [{"sharded": True}] if training.processes > 1 and scope.shardable else []
        yield [*in_parts, {"storage": "fp8"}]  # one or the other
    more = range(training.swapped_blocks + 1, scope.blocks + 1)
    if more and training.processes == 1:  # a config with both is refused
        yield [{"swapped_blocks": count} for count in more]


def _luxuries(training: TrainingSection) -> Iterator[dict[str, Any]]:
    """The costliest first. Recomputation goes only with what needs it gone too."""
    if training.swapped_blocks:
        yield {"swapped_blocks": 0}
    if training.storage != "full":
        yield {"storage": "full"}
    if training.sharded:
        yield {"sharded": False}
    if training.gradient_checkpointing:
        with_it = {"keep_attention": False} if training.keep_attention else {}
        yield {"gradient_checkpointing": False, "storage": "full", "swapped_blocks": 0, **with_it}
        if not training.keep_attention:
            yield {"keep_attention": True}
    if training.micro_batch:
        yield {"micro_batch": 0}
