"""The judge of the pocket world: reads attributes, tracks, masks and identity back from pixels."""

from pipeline_lib.pocket.judge.identity import Gallery
from pipeline_lib.pocket.judge.judge import Judge, JudgeName
from pipeline_lib.pocket.judge.reading import Reading, SubjectReading, Word

__all__ = ["Gallery", "Judge", "JudgeName", "Reading", "SubjectReading", "Word"]
