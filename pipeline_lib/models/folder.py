"""A diffusers pipeline folder on disk: its index, its parts' configs, and loading one part at a time."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, ValidationError
from safetensors import SafetensorError, safe_open

from pipeline_lib.errors import InputError, ResourceError
from pipeline_lib.models.frame_limits import check_video
from pipeline_lib.records import FrameRules, Record
from pipeline_lib.storage.files import sha256

if TYPE_CHECKING:
    import torch

CARD_NAME = "mannerism.json"
MOST_FRAMES_PER_SECOND = 1000
_LIBRARIES = ("diffusers", "transformers")
_HASHED = (".json", ".safetensors", ".model", ".txt", ".bin")


class BaseCard(Record):
    """`mannerism.json` beside `model_index.json`: what a base was trained at, which no config tells.

    It is a file of its own because a pipeline class warns about keys of its index that it does not
    know, and drops them when it saves.
    """

    height: int = Field(gt=0)
    width: int = Field(gt=0)
    num_frames: int = Field(gt=0)
    frames_per_second: float = Field(gt=0, le=MOST_FRAMES_PER_SECOND, allow_inf_nan=False)
    sigma_shift: float = Field(gt=0, allow_inf_nan=False)
    guidance_scale: float = Field(ge=0, allow_inf_nan=False)
    low_noise_guidance_scale: float | None = Field(
        default=None, ge=0, allow_inf_nan=False, exclude_if=lambda scale: scale is None
    )
    sampling_steps: int = Field(gt=0)
    negative_prompt: str = ""
    licence: str = ""
    self_conditioning: bool = Field(default=False, exclude_if=lambda on: not on)  # pretrained with it

    def rules(self, size_multiple: int, frame_multiple: int) -> FrameRules:
        """Its size, length and frame rate, with what the family's networks allow; InputError where they do not fit."""
        rules = FrameRules(
            height=self.height,
            width=self.width,
            num_frames=self.num_frames,
            frames_per_second=self.frames_per_second,
            size_multiple=size_multiple,
            frame_multiple=frame_multiple,
        )
        check_video(f"{CARD_NAME} does not fit the networks beside it", self.num_frames, self.width, self.height, rules)
        return rules

    def defaults(self) -> dict[str, Any]:
        """What a :class:`pipeline_lib.models.base.FamilySpec` takes over as it is, by name."""
        return {
            "sigma_shift": self.sigma_shift,
            "guidance_scale": self.guidance_scale,
            "low_noise_guidance_scale": self.low_noise_guidance_scale,
            "sampling_steps": self.sampling_steps,
            "negative_prompt": self.negative_prompt,
            "licence": self.licence,
            "self_conditioned": self.self_conditioning,
        }

    def save(self, folder: Path) -> None:
        """Writes the card into a base's folder."""
        (folder / CARD_NAME).write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")


class PipelineFolder:
    """One diffusers folder.

    Args:
        path: the folder that holds `model_index.json`.

    Raises:
        InputError: no folder, no index, or an index that is not JSON.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_dir():
            raise InputError(f"{path} is not a folder", fix="give a diffusers folder or a hub id")
        if not (path / "model_index.json").is_file():
            raise InputError(f"{path} has no model_index.json", fix="give a folder that a diffusers pipeline saved")
        self.index = self._json("model_index.json")

    @property
    def pipeline_class(self) -> str:
        """The pipeline's class name, as saved."""
        return str(self.index.get("_class_name", ""))

    @property
    def parts(self) -> dict[str, tuple[str, str]]:
        """Name of each saved part to its library and class; parts saved as null are left out."""
        pairs = {name: value for name, value in self.index.items() if isinstance(value, list) and len(value) == 2}
        return {name: (library, kind) for name, (library, kind) in pairs.items() if library and kind}

    def card(self) -> BaseCard | None:
        """The base's card, or None where the folder has none.

        Returns:
            The checked card: sizes, frame rate and sampling defaults that no config tells.

        Raises:
            InputError: the card is there and is wrong.
        """
        if not (self.path / CARD_NAME).is_file():
            return None
        try:
            return BaseCard.model_validate(self._json(CARD_NAME))
        except ValidationError as error:
            raise InputError(f"{self.path / CARD_NAME} is not a base card", got=str(error)) from error

    def config(self, part: str) -> dict[str, Any]:
        """The `config.json` (or scheduler config) of one part."""
        name = "scheduler_config.json" if part == "scheduler" else "config.json"
        return self._json(f"{part}/{name}")

    def shapes(self, part: str) -> dict[str, tuple[int, ...]]:
        """Name to shape of every tensor of one part, read from the headers of its safetensors files alone.

        Args:
            part: its name in the index.

        Returns:
            Shapes; empty where the part has no such files. Variants such as `.fp16.` are left out.

        Raises:
            InputError: a file is damaged.
        """
        shapes: dict[str, tuple[int, ...]] = {}
        for file in sorted((self.path / part).glob("*.safetensors")):
            if "." in file.stem:
                continue
            try:
                with safe_open(file, framework="pt") as opened:
                    shapes |= {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118
            except (OSError, SafetensorError) as error:
                raise InputError(f"{file} cannot be read", got=str(error), fix="fetch it again") from error
        return shapes

    def load(self, part: str, **options: Any) -> Any:
        """Loads one part with the class that the index names, complete or not at all.

        Args:
            part: its name in the index, e.g. "vae".
            **options: passed to `from_pretrained`.

        Returns:
            The live module, tokenizer or scheduler.

        Raises:
            InputError: the part is missing, unreadable, or lacks weights.
            ResourceError: it does not fit into memory.
        """
        import torch  # late: what a folder says of itself is read without it

        kind = self.class_of(part)
        is_module = issubclass(kind, torch.nn.Module)
        if is_module:
            options |= {"output_loading_info": True}
        try:
            loaded = kind.from_pretrained(self.path / part, local_files_only=True, **options)
        except torch.OutOfMemoryError as error:
            raise ResourceError(f"{self.path / part} does not fit into memory: {error}") from error
        except (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError) as error:
            raise InputError(
                f"{self.path / part} cannot be loaded", got=str(error), fix="fetch or save the folder again"
            ) from error
        if not is_module:
            return loaded
        module, info = loaded
        # from_pretrained leaves missing weights random and only warns.
        if missing := sorted(info["missing_keys"]):
            raise InputError(f"{self.path / part} lacks weights", got=", ".join(missing[:4]))
        return module

    def unread(self, part: str, dtype: torch.dtype) -> Any:
        """One network as its config alone makes it, its weights not those of the files.

        Args:
            part: its name in the index.
            dtype: of its weights; as where diffusers reads a model (`load_model_dict_into_meta`), what a class keeps in
                float32 is in float32.

        Returns:
            The module, on torch's default device: on "meta" it takes no memory.

        Raises:
            InputError: the part is missing, or is no class of diffusers or transformers.
        """
        import torch

        kind, config, wide = self.class_of(part), self.config(part), set[str]()
        if hasattr(kind, "from_config"):
            network = kind.from_config(config)
            wide = set(getattr(network, "_keep_in_fp32_modules", None) or ())
        else:
            network = kind(kind.config_class.from_dict(config))
        for name, value in network.state_dict(keep_vars=True).items():
            if value.is_floating_point():
                value.data = value.data.to(torch.float32 if wide & set(name.split(".")) else dtype)
        return network

    def digest(self) -> str:
        """SHA-256 over names and contents of the index, the card and every part's files."""
        files = [self.path / name for name in ("model_index.json", CARD_NAME)]
        for part in self.parts:
            files += sorted(file for file in (self.path / part).rglob("*") if file.suffix in _HASHED)
        total = hashlib.sha256()
        for file in files:
            if file.is_file():
                stat = file.stat()
                file_hash = _file_sha256(file.resolve(), stat.st_mtime_ns, stat.st_size)
                total.update(f"{file.relative_to(self.path).as_posix()}:{file_hash}\n".encode())
        return total.hexdigest()

    def class_of(self, part: str) -> Any:
        """The class that the index names for a part; InputError where it is none of diffusers' or transformers'."""
        if part not in self.parts or not (self.path / part).is_dir():
            raise InputError(f"{self.path} has no {part}", got=", ".join(sorted(self.parts)), expected=part)
        library, name = self.parts[part]
        kind = getattr(import_module(library), name, None) if library in _LIBRARIES else None
        if kind is None:
            raise InputError(
                f"{self.path} asks for {library}.{name} as its {part}", expected="a class of diffusers or transformers"
            )
        return kind

    def _json(self, name: str) -> dict[str, Any]:
        try:
            content = json.loads((self.path / name).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(f"{self.path / name} cannot be read as JSON", got=str(error)) from error
        if not isinstance(content, dict):
            raise InputError(f"{self.path / name} is not a JSON object", got=type(content).__name__)
        return content


@lru_cache(maxsize=1024)
def _file_sha256(file: Path, mtime_ns: int, size: int) -> str:  # noqa: ARG001 - part of the cache key
    return sha256(file)
