"""What can be told about a config before any model is imported: mistakes are named at once."""

from __future__ import annotations

from pathlib import Path

from pipeline_lib.errors import ConfigError
from pipeline_lib.generation.prompts import check_prompts, read_prompts
from pipeline_lib.media.header import read_header
from pipeline_lib.media.limits import DEFAULT_LIMITS
from pipeline_lib.models.lora_file import used_loras
from pipeline_lib.observers import captioner_folder, segmenter_path
from pipeline_lib.records import Prompt
from pipeline_lib.registry import (
    base_source,
    check_base,
    choose_method,
    choose_settings,
    encoder_folder,
    open_base,
    truth_weights,
)
from pipeline_lib.run_config import RunConfig
from pipeline_lib.sections import ENCODERS
from pipeline_lib.steps.caption import class_noun
from pipeline_lib.steps.prepare import collect_inputs


def check_config(config: RunConfig) -> None:
    """Looks at inputs, subject, names, the method's own settings and prompts.

    Args:
        config: the whole of it.

    Raises:
        InputError: the first mistake found; names the thing and the fix.
    """
    for clip in collect_inputs(config).clips:
        read_header(clip, DEFAULT_LIMITS)
    if not (config.concept.subject or config.concept.class_noun or config.captions):
        raise ConfigError("what is to be learned has no name", fix="say it with --subject, e.g. --subject dog")
    check_service(config)
    check_prompts(asked_prompts(config), class_noun(config))


def check_service(config: RunConfig) -> None:
    """Looks at all that does not depend on the inputs.

    Args:
        config: perhaps without inputs.

    Raises:
        InputError: the first mistake found; names the thing and the fix.
    """
    choose_settings(config)
    captioner_folder(config)
    segmenter_path(config)
    check_base(config)
    _check_loras(config)
    for role in ENCODERS:
        encoder_folder(config, role)
    truth_weights(config)


def _check_loras(config: RunConfig) -> None:
    """Reads the LoRAs that a config names against its base; those for a hub id's only as far as they can be alone."""
    loras = (*config.base.loras, *config.method.start)
    if not loras:
        return
    if config.method.start:
        choose_method(config)
    used_loras(loras)
    if Path(base_source(config)).expanduser().exists():
        open_base(config, "cpu", "float32")


def asked_prompts(config: RunConfig) -> list[Prompt]:
    """The prompts that a person gave: of the file, else of the list; perhaps none, and not yet checked."""
    if config.samples.prompts_file:
        return read_prompts(Path(config.samples.prompts_file))
    return [Prompt(text=text) for text in config.samples.prompts]
