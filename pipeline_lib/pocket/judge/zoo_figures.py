"""Figures of the parts of the zoo, as README.md and the cards give them; None for parts that do not exist yet."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from diffusers import AutoencoderKLWan, WanPipeline
from transformers import CLIPModel

from pipeline_lib.media.read import read_clips
from pipeline_lib.pocket.autoencoder_quality import held_out_frames, peak_signal_to_noise
from pipeline_lib.pocket.captioner_quality import captioner_figures
from pipeline_lib.pocket.clip_encoder import retrieval_accuracy
from pipeline_lib.pocket.identity_figures import identity_figures
from pipeline_lib.pocket.image_encoder import image_encoder_figures
from pipeline_lib.pocket.judge.decoded import load_autoencoder
from pipeline_lib.pocket.judge.grading import answerable
from pipeline_lib.pocket.judge.judge import Judge
from pipeline_lib.pocket.judge.reading import Reading
from pipeline_lib.pocket.judge.tally import Share, Tally, mean_record
from pipeline_lib.pocket.segmenter_quality import segmenter_figures
from pipeline_lib.pocket.tokenizer import build_tokenizer
from pipeline_lib.pocket.world_settings import CLIP_FRAMES, FPS, HELD_OUT_SEED, SIZE
from pipeline_lib.pocket.zoo import zoo_root
from pipeline_lib.records import FrameRules
from pipeline_lib.world.captions import CaptionStyle, caption
from pipeline_lib.world.render import render
from pipeline_lib.world.sampling import SceneMix, sample_scene, scene_generator
from pipeline_lib.world.scene import Scene

Frames = npt.NDArray[np.uint8]
_ONE = SceneMix(two_share=0.0)
_TWO = SceneMix(two_share=1.0, creature_share=0.0, accessory_share=0.0)
_BATCH, _STEPS, _GUIDANCE = 16, 20, 3.0
_WOLF = Path("clips") / "wolf.mp4"
_GROUPS = 8  # of 64 frames each, for the image-text encoder
BASE_ATTRIBUTES = ("colour", "background", "shape", "accessory", "motion", "binding")
READERS = ("captioner", "segmenter_iou", "identity_tar", "image_top1")
"""Figures of the zoo's readers; None for those that are not there."""


def prompt_of(scene: Scene, index: int, image: bool) -> str:
    """The full caption of a held-out scene, in canonical words."""
    return caption(scene, scene_generator(HELD_OUT_SEED, index, 3), CaptionStyle(image=image, full=True))


def generate(pipeline: WanPipeline, prompts: list[str], num_frames: int, seed: int) -> Frames:
    """Sample by the stock call.

    Args:
        pipeline: the base.
        prompts: what to show.
        num_frames: 1 or 13.
        seed: of the noise.

    Returns:
        Shape (N, T, 64, 64, 3), uint8.
    """
    result = pipeline(
        prompt=prompts,
        negative_prompt="",
        height=SIZE,
        width=SIZE,
        num_frames=num_frames - 1,  # see world_settings.STOCK_CLIP_FRAMES
        num_inference_steps=_STEPS,
        guidance_scale=_GUIDANCE,
        generator=torch.Generator().manual_seed(seed),
        output_type="np",
    )
    return np.clip(np.asarray(result.frames) * 255.0 + 0.5, 0, 255).astype(np.uint8)


def grade_sample(tally: Tally, scene: Scene, reading: Reading) -> None:
    """Count what a sample shows of its prompt.

    The prompt names one subject: the surest one in the sample is graded, nobody is wrong. A free
    motion is asked for only in general words, so it is not graded; a picture shows none.

    Args:
        tally: where to count.
        scene: what was asked for.
        reading: the sample as read.
    """
    subject, main = scene.subjects[0], reading.main
    tally.add("background", reading.background.word == scene.backdrop.name)
    tally.add("shape", main is not None and main.words["shape"].word == subject.shape)
    tally.add("accessory", main is not None and main.words["accessory"].word == subject.accessory)
    if "colour" in answerable(scene, render(scene))[0]:
        tally.add("colour", main is not None and main.words["colour"].word == subject.colour)
    if len(reading.daylight) > 1 and subject.motion.name != "free":
        read = None if main is None or main.motion is None else main.motion.word
        tally.add("motion", read == subject.motion.name)


def grade_pair(tally: Tally, scene: Scene, reading: Reading) -> None:
    """Count whether both subjects have their shape and colour, on either side.

    A prompt says the sides only sometimes, so either order is right.
    """
    asked = tuple((subject.shape, subject.colour) for subject in scene.subjects)
    tally.add("binding", sorted(reading.binding) == sorted(asked))


def base_figures(pipeline: WanPipeline, judge: Judge, num_frames: int, count: int) -> dict[str, Share]:
    """What the base makes of held-out prompts.

    Args:
        pipeline: the base.
        judge: who reads.
        num_frames: 13 or 1.
        count: prompts with one subject, and as many with two.

    Returns:
        Shares by attribute.
    """
    tally = Tally()
    for mix, grade in ((_ONE, grade_sample), (_TWO, grade_pair)):
        scenes = [sample_scene(HELD_OUT_SEED, index, mix) for index in range(count)]
        for start in range(0, count, _BATCH):
            part = range(start, min(count, start + _BATCH))
            prompts = [prompt_of(scenes[index], index, num_frames == 1) for index in part]
            videos = generate(pipeline, prompts, num_frames, HELD_OUT_SEED + start)
            for index, video in zip(part, videos, strict=True):
                grade(tally, scenes[index], judge.read(video))
    return tally.shares()


def wolf_clip() -> Path | None:
    """The real clip, in the folder named by MANNERISM_MEDIA or beside the repository; None when it is not there."""
    repository = Path(__file__).parents[3]
    path = Path(os.environ.get("MANNERISM_MEDIA", repository.parent / "shared" / "media")) / _WOLF
    return path if path.is_file() else None


def _real_frames(path: Path) -> torch.Tensor:
    rules = FrameRules(num_frames=CLIP_FRAMES, height=SIZE, width=SIZE, frames_per_second=float(FPS))
    return torch.from_numpy(read_clips([path], rules)[0].frames[:CLIP_FRAMES])


def _decibels(vae: AutoencoderKLWan, clips: list[torch.Tensor]) -> dict[str, object]:
    return mean_record([peak_signal_to_noise(vae, frames) for frames in clips], digits=2)


def autoencoder_figures(folder: Path, clips: int) -> dict[str, object]:
    """PSNR in dB on held-out world clips and on a real clip.

    Args:
        folder: the autoencoder.
        clips: how many world clips.

    Returns:
        ``world_psnr`` and ``wolf_psnr``; the latter None without the clip.
    """
    vae, wolf = load_autoencoder(folder), wolf_clip()
    world = list(held_out_frames(4 * clips).split(4))
    return {
        "world_psnr": _decibels(vae, world),
        "wolf_psnr": None if wolf is None else _decibels(vae, [_real_frames(wolf)]),
    }


def _plain(shares: dict[str, Share]) -> dict[str, object]:
    return {name: share.record() for name, share in shares.items()}


def _base_records(folder: Path, judge: Judge, count: int) -> tuple[dict[str, object], dict[str, object]]:
    pipeline = WanPipeline.from_pretrained(folder, torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    videos, pictures = (base_figures(pipeline, judge, frames, count) for frames in (CLIP_FRAMES, 1))
    return _plain(videos), _plain(pictures)


def zoo_figures(judge: Judge, count: int) -> dict[str, object]:
    """Every figure of the zoo.

    Args:
        judge: who reads.
        count: prompts per kind; 0 leaves the base's samples out.

    Returns:
        Plain data for JSON: the video samples' attributes by their own names, ``picture`` (one-frame
        samples), ``autoencoder``, ``clip_top1``, ``captioner``, ``segmenter_iou``, ``identity_tar`` and
        ``image_top1``; None for what does not exist or was left out.
    """
    figures: dict[str, object] = dict.fromkeys((*BASE_ATTRIBUTES, "picture", "autoencoder", "clip_top1", *READERS))
    base, clip = zoo_root() / "base", zoo_root() / "clip"
    if base.is_dir():
        figures["autoencoder"] = autoencoder_figures(base / "vae", 64)
        if count:
            videos, figures["picture"] = _base_records(base, judge, count)
            figures |= videos
    if clip.is_dir():
        model = CLIPModel.from_pretrained(clip, torch_dtype=torch.float32).eval()
        found = retrieval_accuracy(model, build_tokenizer(), _GROUPS)
        figures["clip_top1"] = Share(round(found * 64 * _GROUPS), 64 * _GROUPS).record()
    return figures | _reader_figures(zoo_root())


def _reader_figures(zoo: Path) -> dict[str, object]:
    """Figures of the zoo's readers, each as its own recipe measures it."""
    figures: dict[str, object] = {}
    if (zoo / "captioner").is_dir():
        figures |= captioner_figures(zoo / "captioner")
    if (zoo / "segmenter").is_dir():
        figures["segmenter_iou"] = segmenter_figures(zoo / "segmenter")
    if (zoo / "identity").is_dir():
        figures |= identity_figures(zoo / "identity")
    if (zoo / "image").is_dir():
        figures |= image_encoder_figures(zoo / "image")
    return figures
