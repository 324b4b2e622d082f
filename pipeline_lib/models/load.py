"""From a folder or a hub id to a base model."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from pipeline_lib.errors import InputError, PipelineError, UnreachableError
from pipeline_lib.models.base import BaseModel
from pipeline_lib.models.economy import Economy
from pipeline_lib.models.families import family_of
from pipeline_lib.models.folder import CARD_NAME, PipelineFolder
from pipeline_lib.storage import disk_errors

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def load_base(
    source: str,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    revision: str | None = None,
    economy: Economy | None = None,
) -> BaseModel:
    """Loads a base model; weights are read when they are first used.

    Args:
        source: a local diffusers folder, or a hub id, which is downloaded.
        device: where it runs.
        dtype: of the transformer and the text encoder.
        revision: branch, tag or commit of a hub id.
        economy: how the denoiser is kept; None: whole, on the device, as it is.

    Returns:
        The base.

    Raises:
        InputError: nothing there, not a diffusers folder, a family that is not known, or no such device.
        UnreachableError: the hub does not answer; it may the next time.
    """
    place = _usable_device(device)
    folder = PipelineFolder(_local_folder(source, revision))
    base = family_of(folder).open(folder, source, place, dtype)
    base.economy = economy or Economy()
    return base


def _usable_device(device: str | torch.device) -> torch.device:
    try:
        place = torch.device(device)
    except RuntimeError as error:
        raise InputError("there is no such device", got=str(device), expected="cpu, cuda or cuda:N") from error
    if place.type == "cuda" and (place.index or 0) >= torch.cuda.device_count():
        raise InputError("there is no such GPU", got=str(place), expected=f"{torch.cuda.device_count()} GPUs here")
    return place


def _local_folder(source: str, revision: str | None) -> Path:
    path = Path(source).expanduser()
    if path.is_dir():
        if revision is not None:
            raise InputError(f"a revision is of a hub id, but {source} is a local folder", got=revision)
        return path
    if path.exists() or not _HUB_ID.fullmatch(source):
        raise InputError(f"there is no base model at {source}", expected="a diffusers folder or a hub id like org/name")
    return _download(source, revision)


def _download(hub_id: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    try:
        with disk_errors(Path(HF_HUB_CACHE), f"{hub_id} from the hub"):
            index = Path(snapshot_download(hub_id, revision=revision, allow_patterns=["model_index.json", CARD_NAME]))
            # Only the parts that the index names: such repositories often hold the same weights twice.
            patterns = [f"{part}/*" for part in PipelineFolder(index).parts]
            return Path(snapshot_download(hub_id, revision=revision, allow_patterns=[*patterns, "*.json"]))
    except PipelineError:
        raise
    except Exception as error:
        if not _is_the_hubs(error):
            raise
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        # A gated repository counts as one that is not found.
        if isinstance(error, RepositoryNotFoundError | RevisionNotFoundError) or _is_offline_on_purpose(error):
            raise InputError(
                f"{hub_id} is neither a local folder nor a hub id that can be fetched",
                got=said,
                fix="check the name, HF_HUB_OFFLINE and the licence's terms, or give a local folder",
            ) from error
        raise UnreachableError(f"{hub_id} could not be fetched from the hub: {said}") from error


def _is_the_hubs(error: Exception) -> bool:
    """Its own errors are of the system's; those of its HTTP library, which has changed, come out as they are too."""
    of_http = any(base.__name__ == "HTTPError" for base in type(error).__mro__)
    return of_http or (isinstance(error, OSError) and not isinstance(error, PermissionError))


def _is_offline_on_purpose(error: Exception) -> bool:
    from huggingface_hub.errors import OfflineModeIsEnabled

    return isinstance(error.__cause__, OfflineModeIsEnabled)
