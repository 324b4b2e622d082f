"""What the metric tests share: tiny encoders of the real classes and clips that move."""

import cv2
import numpy as np
import pytest
import torch

from pipeline_lib.features.identity import CropIdentityEncoder, IdentityConfig, IdentityNetwork, save_identity
from pipeline_lib.features.image_text import ClipEncoder
from pipeline_lib.features.tiny import tiny_clip


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> ClipEncoder:
    return ClipEncoder(tiny_clip(tmp_path_factory.mktemp("zoo") / "tiny-clip"))


@pytest.fixture(scope="session")
def identity_encoder(tmp_path_factory: pytest.TempPathFactory) -> CropIdentityEncoder:
    torch.manual_seed(0)
    config = IdentityConfig(crop_size=24, widths=(8, 16, 24), embedding=16)
    folder = tmp_path_factory.mktemp("zoo") / "tiny-identity"
    save_identity(folder, config, IdentityNetwork(config).state_dict())
    return CropIdentityEncoder(folder)


@pytest.fixture(scope="session")
def moving() -> np.ndarray:
    """A smooth texture that glides to the right, 2 pixels a frame: (9, 64, 64, 3)."""
    noise = np.random.default_rng(3).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    image = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 2), None, 0, 255, cv2.NORM_MINMAX)
    return np.stack([np.roll(image, 2 * index, axis=1) for index in range(9)])
