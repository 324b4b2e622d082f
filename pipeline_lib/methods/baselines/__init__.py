"""The baselines that the papers compare with, each a method like any other."""

from pipeline_lib.methods.baselines.lora import LoraSettings, PlainLora

__all__ = ["LoraSettings", "PlainLora"]
