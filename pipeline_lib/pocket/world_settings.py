"""Facts about the pocket world that other parts need."""

from __future__ import annotations

from pipeline_lib.world.vocabulary import FRAME_SIZE, FRAMES_PER_SECOND, NUM_FRAMES

SIZE = FRAME_SIZE
"""Width and height of a frame in pixels."""
FPS = FRAMES_PER_SECOND
"""Frames per second of every clip."""
CLIP_FRAMES = NUM_FRAMES
"""Frames of every clip."""
STOCK_CLIP_FRAMES = NUM_FRAMES - 1
"""What to ask a stock ``WanPipeline`` call for to get ``CLIP_FRAMES``.

Trap: without temporal compression the stock call rounds every ``num_frames`` up by one
(``num_frames % 1`` is never 1), so 12 gives 13 frames and 0 gives one.
"""
CLASS_NOUN = "creature"
"""Class noun of the held-out concepts."""
TRAINING_SEED = 1
"""Seed of the scenes that the zoo is trained on."""
HELD_OUT_SEED = 900_001
"""Seed of the scenes that no part of the zoo is trained on."""
FLOW_SHIFT = 3.0
"""Flow shift that the base is trained and sampled with."""
GUIDANCE_SCALE = 3.0
"""Guidance that the base is sampled with: 4 follows prompts no better, and takes a personalised base off its clip."""
