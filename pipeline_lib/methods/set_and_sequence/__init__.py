"""Set-and-Sequence: one identity basis from a set of frames, motion residuals from the sequence."""

from pipeline_lib.methods.set_and_sequence.method import SetAndSequence
from pipeline_lib.methods.set_and_sequence.settings import PRESETS, SetAndSequenceSettings

__all__ = ["PRESETS", "SetAndSequence", "SetAndSequenceSettings"]
