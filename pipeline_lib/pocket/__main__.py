"""Train the zoo: ``python -m pipeline_lib.pocket PART``; without a part it names them, ``all`` trains every one."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from diffusers import AutoencoderKLWan
from transformers import CLIPModel

from pipeline_lib.pocket import (
    autoencoder,
    base,
    captioner,
    captioner_quality,
    clip_cache,
    clip_encoder,
    contact_sheet,
    identity_encoder,
    identity_figures,
    image_encoder,
    segmenter,
    segmenter_quality,
    sibling,
)
from pipeline_lib.pocket.base_data import LatentSource
from pipeline_lib.pocket.captioner_data import LessonSource
from pipeline_lib.pocket.latents_cache import autoencoder_digest, latents_present, write_latents
from pipeline_lib.pocket.pieces import Piece
from pipeline_lib.pocket.segmenter_data import QuerySource
from pipeline_lib.pocket.tokenizer import build_tokenizer
from pipeline_lib.pocket.zoo import zoo_root

SHARDS = 40
"""Shards of 256 training clips that the recipes read."""


def _piece(arguments: argparse.Namespace, name: str) -> Piece:
    piece = Piece(arguments.work, name, arguments.minutes)
    piece.stop_on_terminate()
    return piece


def _clips(arguments: argparse.Namespace) -> None:
    clip_cache.write_shards(arguments.work / "clips", 0, arguments.shards)


def _autoencoder(arguments: argparse.Namespace) -> None:
    if not clip_cache.shards_present(arguments.work / "clips"):
        clip_cache.write_shards(arguments.work / "clips", 0, min(16, arguments.shards))
    settings = autoencoder.AutoencoderSettings(**({"steps": arguments.steps} if arguments.steps else {}))
    source = autoencoder.PictureSource(arguments.work / "clips", settings)
    piece, target = _piece(arguments, "autoencoder"), arguments.zoo / "base"
    trainer = autoencoder.AutoencoderTrainer(piece, source, settings, target, arguments.go_on)
    quality = autoencoder.train(trainer)
    print(f"autoencoder: {quality:.2f} dB on held-out world frames")


def _decoder(arguments: argparse.Namespace) -> None:
    settings = autoencoder.AutoencoderSettings(steps=arguments.steps or 1200, decoder_only=True, latent_noise=0.06)
    source = autoencoder.PictureSource(arguments.work / "clips", settings)
    piece = _piece(arguments, "decoder")
    quality = autoencoder.train(autoencoder.AutoencoderTrainer(piece, source, settings, arguments.zoo / "base"))
    print(f"decoder: {quality:.2f} dB on held-out world frames")


def _vae(arguments: argparse.Namespace) -> AutoencoderKLWan:
    return AutoencoderKLWan.from_pretrained(arguments.zoo / "base" / "vae", torch_dtype=torch.float32).eval()


def _latents(arguments: argparse.Namespace) -> None:
    write_latents(_vae(arguments), arguments.work / "latents", list(range(arguments.shards)))


def _base(arguments: argparse.Namespace) -> None:
    folder = arguments.work / "latents"
    while len(latents_present(folder)) < min(2, arguments.shards):
        # `latents` may be running beside this: training starts on the first shards.
        time.sleep(2.0)
    source = LatentSource(folder, build_tokenizer(), autoencoder_digest(_vae(arguments)))
    source.refresh()
    settings = base.BaseSettings(**({"steps": arguments.steps} if arguments.steps else {}))
    published = arguments.zoo / "base" if arguments.go_on else None
    if published:
        settings = replace(settings, image_steps=0)
    trainer = base.BaseTrainer(_piece(arguments, "base"), source, settings, published)
    if arguments.compile:
        # Not `block.compile()`: the hooks of PlaceHeads would be compiled too, for each block anew. All blocks share a
        # count of graphs, of which the watched padding takes one for each block, and past it nothing is compiled.
        torch._dynamo.config.recompile_limit = 64
        for block in trainer.model.transformer.blocks:
            block.forward = torch.compile(block.forward, dynamic=False)
    steps = base.train(trainer, arguments.zoo / "base")
    print(f"base: {steps} of {settings.steps} steps")


def _outline(arguments: argparse.Namespace) -> None:
    settings = sibling.SiblingSettings(**({"steps": arguments.steps} if arguments.steps else {}))
    parent, folder, vae = arguments.zoo / "base", arguments.work / "outline", _vae(arguments)
    numbers = list(range(sibling.FIRST_SHARD, sibling.FIRST_SHARD + settings.shards))
    write_latents(vae, folder, numbers, sibling.OUTLINE_MIX)
    source = LatentSource(folder, build_tokenizer(), autoencoder_digest(vae), mix=sibling.OUTLINE_MIX)
    source.refresh()
    trainer = sibling.SiblingTrainer(_piece(arguments, "outline"), source, settings, parent)
    print(f"outline: {sibling.train(trainer, arguments.zoo / 'outline')} of {settings.steps} steps")


def _clip(arguments: argparse.Namespace) -> None:
    settings = clip_encoder.ClipSettings(**({"steps": arguments.steps} if arguments.steps else {}))
    source, target = clip_encoder.PairSource(arguments.work / "clips", build_tokenizer()), arguments.zoo / "clip"
    published = target if arguments.go_on else None
    accuracy = clip_encoder.train(
        clip_encoder.ClipTrainer(_piece(arguments, "clip"), source, settings, published), target
    )
    print(f"clip: top-1 of 64 is {accuracy:.3f}")


def _image(arguments: argparse.Namespace) -> None:
    settings = image_encoder.ImageSettings(**({"steps": arguments.steps} if arguments.steps else {}))
    pool = identity_encoder.subject_pool(arguments.work / "subjects.npz", identity_encoder.IdentitySettings())
    target = arguments.zoo / "image"
    start = image_encoder.from_clip(CLIPModel.from_pretrained(arguments.zoo / "clip", torch_dtype=torch.float32))
    image_encoder.train(start, _piece(arguments, "image"), pool, settings, target)
    print(f"image: {image_encoder.image_encoder_figures(target)}")


def _identity(arguments: argparse.Namespace) -> None:
    settings = identity_encoder.IdentitySettings(**({"steps": arguments.steps} if arguments.steps else {}))
    pool = identity_encoder.subject_pool(arguments.work / "subjects.npz", settings)
    target = arguments.zoo / "identity"
    identity_encoder.train(_piece(arguments, "identity"), pool, settings, target)
    print(f"identity: {identity_figures.identity_figures(target)}")


def _segmenter(arguments: argparse.Namespace) -> None:
    settings = segmenter.SegmenterSettings(**({"steps": arguments.steps} if arguments.steps else {}))
    source, target = QuerySource(arguments.work / "clips"), arguments.zoo / "segmenter"
    trainer = segmenter.SegmenterTrainer(_piece(arguments, "segmenter"), source, settings, arguments.zoo / "clip")
    segmenter.train(trainer, target)
    print(f"segmenter: {segmenter_quality.segmenter_figures(target)}")


def _captioner(arguments: argparse.Namespace) -> None:
    settings = captioner.CaptionerSettings(**({"steps": arguments.steps} if arguments.steps else {}))
    source, target = LessonSource(arguments.work / "clips"), arguments.zoo / "captioner"
    trainer = captioner.CaptionerTrainer(_piece(arguments, "captioner"), source, settings, arguments.zoo / "clip")
    captioner.train(trainer, target)
    print(f"captioner: {captioner_quality.captioner_figures(target)}")


def _sheet(arguments: argparse.Namespace) -> None:
    target = arguments.sheet or arguments.zoo.parent / "contact_sheet.png"
    contact_sheet.draw_sheet(arguments.zoo / "base", target, arguments.frames)
    print(f"sheet: {target}")


def _all(arguments: argparse.Namespace) -> None:
    for part in (
        _clips,
        _autoencoder,
        _latents,
        _base,
        _decoder,
        _outline,
        _clip,
        _image,
        _identity,
        _segmenter,
        _captioner,
        _sheet,
    ):
        part(arguments)


_PARTS: dict[str, Callable[[argparse.Namespace], None]] = {
    "clips": _clips,
    "autoencoder": _autoencoder,
    "decoder": _decoder,
    "latents": _latents,
    "base": _base,
    "outline": _outline,
    "clip": _clip,
    "image": _image,
    "identity": _identity,
    "segmenter": _segmenter,
    "captioner": _captioner,
    "sheet": _sheet,
    "all": _all,
}


def main() -> None:
    """Read the command line and run one part, or all."""
    parser = argparse.ArgumentParser(prog="python -m pipeline_lib.pocket", description=__doc__)
    parser.add_argument("part", choices=sorted(_PARTS))
    parser.add_argument("--minutes", type=float, default=90.0, help="length of this piece")
    parser.add_argument("--steps", type=int, default=0, help="steps in all; 0: the recipe's own")
    parser.add_argument("--work", type=Path, default=Path("pocket_work"), help="checkpoints, caches")
    parser.add_argument("--zoo", type=Path, default=zoo_root(), help="where parts are published")
    parser.add_argument("--shards", type=int, default=SHARDS, help="shards of 256 training clips")
    parser.add_argument("--frames", type=int, default=13, help="frames of the contact sheet")
    parser.add_argument("--sheet", type=Path, default=None, help="file of the contact sheet")
    parser.add_argument("--go-on", action="store_true", help="no checkpoint: start from the published weights")
    parser.add_argument("--compile", action="store_true", help="compile blocks (needs a compiler)")
    main_arguments = parser.parse_args()
    _PARTS[main_arguments.part](main_arguments)


if __name__ == "__main__":
    main()
