"""Loaded models, kept while a process lives: importing and loading them costs more than many a step."""

from __future__ import annotations

import gc
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pipeline_lib.errors import ConfigError
from pipeline_lib.models.lora_file import used_loras
from pipeline_lib.registry import open_base, open_encoder, open_identity_encoder, open_image_encoder
from pipeline_lib.run_config import RunConfig
from pipeline_lib.sections import TrainingSection

if TYPE_CHECKING:
    from pipeline_lib.features.encoders import FrameEncoder, IdentityEncoder, ImageTextEncoder
    from pipeline_lib.masks.segmenter import Segmenter
    from pipeline_lib.models.base import BaseModel

Model = TypeVar("Model")


class ModelShelf:
    """At most one base, one encoder of each kind and one segmenter, opened on first use.

    Args:
        locks: folder of the device locks; one process trains on a GPU at a time.

    Attributes:
        locks: see above.
    """

    def __init__(self, locks: Path) -> None:
        self.locks = locks
        self._held, self._device = ExitStack(), ""
        self._base: tuple[tuple[str, ...], BaseModel] | None = None
        self._others: dict[Callable[..., object], tuple[tuple[Path, str], Any]] = {}

    def base(
        self, config: RunConfig, on_wait: Callable[[str], None], stop: Callable[[], bool] = lambda: False
    ) -> BaseModel:
        """The base of a run; another one than before replaces it.

        Args:
            config: of the run.
            on_wait: told who holds the device, while waiting for it.
            stop: ends the waiting.

        Returns:
            The base, its weights not yet read.
        """
        device, dtype = resolve_device(config.training)
        kept = (config.training.storage, config.training.swapped_blocks, config.training.compile)
        loras = used_loras(config.base.loras)
        wanted = (config.base.source, config.base.revision, device, dtype, *map(str, (*kept, *loras)))
        if self._base is None or self._base[0] != wanted:
            if device != self._device:
                self.clear()
                if device != "cpu":
                    from pipeline_lib.processes.locks import device_lock

                    self._held.enter_context(device_lock(device, self.locks, on_wait=on_wait, stop=stop))
                self._device = device
            # On the same device the lock stays: a stage that asks for it anew may hold what another holder waits for.
            self._base = None
            self._others.clear()
            self._base = (wanted, open_base(config, device, dtype))
        return self._base[1]

    def encoder(self, folder: Path, device: str) -> ImageTextEncoder:
        """The image-text encoder in a folder."""
        return self._opened(open_encoder, folder, device)

    def image_encoder(self, folder: Path, device: str) -> FrameEncoder:
        """The image encoder in a folder."""
        return self._opened(open_image_encoder, folder, device)

    def identity_encoder(self, folder: Path, device: str) -> IdentityEncoder:
        """The identity encoder in a folder."""
        return self._opened(open_identity_encoder, folder, device)

    def segmenter(self, folder: Path, device: str) -> Segmenter:
        """The CLIPSeg model in a folder."""
        from pipeline_lib.masks.clipseg import ClipSegSegmenter

        return self._opened(ClipSegSegmenter, folder, device)

    def _opened(self, opener: Callable[..., Model], folder: Path, device: str) -> Model:
        if opener not in self._others or self._others[opener][0] != (folder, device):
            self._others[opener] = ((folder, device), opener(folder, device=device))
        model: Model = self._others[opener][1]
        return model

    def drop_base(self) -> None:
        """Forgets the base, which cannot be used any more; whoever asks for it gets it opened anew."""
        self._base = None
        gc.collect()

    def clear(self) -> None:
        """Drops the models and lets the device go."""
        self._base = None
        self._others.clear()
        self._held.close()
        self._device = ""


def resolve_device(training: TrainingSection) -> tuple[str, str]:
    """Device and dtype of a run, "auto" resolved for this machine.

    Args:
        training: its `device` and `dtype`.

    Returns:
        E.g. ("cuda:0", "bfloat16"); on the CPU the default is float32.

    Raises:
        ConfigError: the device is not there.
    """
    import torch

    device = training.device
    if device == "auto":
        device = "cuda:0" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda"):
        index = int(device.partition(":")[2] or 0)
        if index >= torch.cuda.device_count():
            raise ConfigError(
                f"training.device: there is no {device}", got=f"{torch.cuda.device_count()} CUDA devices", fix="use cpu"
            )
        if index + training.processes > torch.cuda.device_count():
            raise ConfigError(
                f"training.processes: {training.processes} processes take a GPU each",
                got=f"{torch.cuda.device_count()} CUDA devices",
            )
        device = f"cuda:{index}"
    dtype = training.dtype
    if dtype == "auto":
        dtype = "bfloat16" if device.startswith("cuda") else "float32"
    return device, dtype
