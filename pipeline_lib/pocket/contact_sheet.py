"""A picture of what the base makes of prompts, by the stock pipeline call."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import WanPipeline
from PIL import Image, ImageDraw

from pipeline_lib.pocket.world_settings import CLIP_FRAMES, GUIDANCE_SCALE, SIZE

PROMPTS = (
    "a red circle standing still on a beach",
    "a blue square bouncing in a forest",
    "a yellow star spinning on a snowy field",
    "a green triangle sliding left in a city",
    "a purple heart pulsing in a desert",
    "a striped orange cross swaying underwater",
    "a pink ring orbiting in a room",
    "a white moon standing still in space",
    "a dotted cyan square sliding right on a beach at night",
    "a brown circle wearing a hat bouncing in a city at dusk",
    "a checkered green heart holding a balloon in a forest",
    "a red star and a blue circle in a desert",
    "a creature moving on a beach",
    "a striped red and yellow creature with two eyes hopping on a snowy field",
    "a purple creature wearing a hat swaying in a room",
    "a creature with antennae dancing in space",
)


def sample(
    pipeline: WanPipeline, prompts: list[str], num_frames: int, steps: int = 20
) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Generate with the stock call at the base's own guidance.

    Args:
        pipeline: the base.
        prompts: what to show.
        num_frames: 1 or 13.
        steps: denoising steps.

    Returns:
        Videos, shape (N, T, 64, 64, 3), uint8.
    """
    result = pipeline(
        prompt=prompts,
        negative_prompt="",
        height=SIZE,
        width=SIZE,
        num_frames=num_frames - 1,  # see world_settings.STOCK_CLIP_FRAMES
        num_inference_steps=steps,
        guidance_scale=GUIDANCE_SCALE,
        generator=torch.Generator().manual_seed(0),
        output_type="np",
    )
    videos = np.clip(np.asarray(result.frames) * 255.0 + 0.5, 0, 255)
    return videos.astype(np.uint8)


def draw_sheet(folder: Path, target: Path, num_frames: int = CLIP_FRAMES, steps: int = 20) -> None:
    """Write the contact sheet: five frames per prompt, the prompt below.

    Args:
        folder: the base.
        target: PNG to write.
        num_frames: 1 or 13.
        steps: denoising steps.
    """
    pipeline = WanPipeline.from_pretrained(folder, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    videos = sample(pipeline, list(PROMPTS), num_frames, steps)
    shown = videos[:, :: max(1, num_frames // 4)][:, :5]
    height, width = SIZE + 14, SIZE * shown.shape[1]
    columns = 2 if num_frames > 1 else 8
    if columns == 8:
        width = 160
    rows = -(-len(PROMPTS) // columns)
    sheet = Image.new("RGB", (columns * (width + 8), rows * height), "white")
    pen = ImageDraw.Draw(sheet)
    for index, frames in enumerate(shown):
        left, top = index % columns * (width + 8), index // columns * height
        sheet.paste(Image.fromarray(np.concatenate(list(frames), axis=1)), (left, top))
        pen.text((left, top + SIZE), PROMPTS[index][:62], fill="black")
    target.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(target)
