"""The fixtures of the training tests serve the methods too."""

from tests.training.conftest import base, data, prior

__all__ = ["base", "data", "prior"]
