"""Recipe of the pocket image encoder, DINO's role: a tiny ``ViTModel`` that knows a subject again."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPModel, ViTConfig, ViTImageProcessor, ViTModel

from pipeline_lib.features.vit import VitEncoder
from pipeline_lib.pocket.contrastive import partner_loss
from pipeline_lib.pocket.identity_figures import GIZMOS, held_out_subjects
from pipeline_lib.pocket.judge.augmentation import damaged
from pipeline_lib.pocket.judge.tally import Share
from pipeline_lib.pocket.judge.training import Losses, NetworkSettings, train_network
from pipeline_lib.pocket.pieces import Piece
from pipeline_lib.pocket.publishing import replace_folder
from pipeline_lib.pocket.subject_views import SubjectViews, render_views
from pipeline_lib.pocket.world_settings import HELD_OUT_SEED, SIZE, TRAINING_SEED
from pipeline_lib.world.sampling import scene_generator

_MEAN, _STD = 0.45, 0.27
GROUP = 64
"""Subjects among which one is looked for."""
_TYPICAL_LENGTH = 0.55
"""Standard deviation of CLIP's embedded patches, typically."""
_NAMES = {
    "self_attn.out_proj": "attention.o_proj",
    "self_attn.": "attention.",
    "layer_norm1": "layernorm_before",
    "layer_norm2": "layernorm_after",
}


@dataclass(frozen=True, kw_only=True)
class ImageSettings:
    """How the image encoder is trained.

    Attributes:
        steps: optimizer steps in all.
        subjects: subjects per step, two views each.
        peak_rate: peak learning rate.
    """

    steps: int = 650
    subjects: int = 48
    peak_rate: float = 2e-3


def build_vit() -> ViTModel:
    """A fresh pocket vision transformer: 64 patches of 8×8 pixels and a class token of 128 numbers."""
    config = ViTConfig(
        image_size=SIZE,
        patch_size=8,
        hidden_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=384,
        layer_norm_eps=1e-5,
    )
    return ViTModel(config, add_pooling_layer=False)


@torch.no_grad()
def from_clip(clip: CLIPModel) -> ViTModel:
    """The vision half of the pocket CLIP as a ``ViTModel``: it has learnt what there is to see.

    CLIP normalises its patches once more before the first layer, which a ``ViTModel`` does not. That is folded into
    the embeddings, with one length for all patches (measured: the class token keeps a cosine of 0.99).

    Args:
        clip: of the same shape, see :func:`pipeline_lib.pocket.clip_encoder.build_clip`.

    Returns:
        The model to go on from.
    """
    model, vision = build_vit(), clip.vision_model
    gain, shift = vision.pre_layrnorm.weight, vision.pre_layrnorm.bias
    kernel, place = vision.embeddings.patch_embedding.weight, vision.embeddings.position_embedding.weight
    first = vision.embeddings.class_embedding + place[0]
    length = _TYPICAL_LENGTH
    places = (place - place.mean(dim=1, keepdim=True)) / length * gain + shift
    embeddings = model.embeddings
    embeddings.patch_embeddings.projection.weight.copy_(
        (kernel - kernel.mean(dim=0, keepdim=True)) / length * gain[:, None, None, None]
    )
    embeddings.patch_embeddings.projection.bias.zero_()
    embeddings.position_embeddings.copy_(places)
    embeddings.cls_token.copy_((first - first.mean()) / first.std(unbiased=False) * gain + shift - places[0])
    for layer, other in zip(model.layers, vision.encoder.layers, strict=True):
        layer.load_state_dict({_renamed(name): value for name, value in other.state_dict().items()})
    model.layernorm.load_state_dict(vision.post_layernorm.state_dict())
    return model


def _renamed(name: str) -> str:
    for theirs, ours in _NAMES.items():
        name = name.replace(theirs, ours)
    return name


def build_image_processor() -> ViTImageProcessor:
    """Squeezes any frame to 64×64, as DINO's own squeezes to 224×224."""
    return ViTImageProcessor(size={"height": SIZE, "width": SIZE}, image_mean=[_MEAN] * 3, image_std=[_STD] * 3)


class ImageTraining(nn.Module):
    """The network and the losses of a step: two views of one subject are nearest to each other.

    The layers are registered as ``trunk`` first, which the loop trains with Muon; the rest is AdamW's.

    Args:
        model: what is trained.
        pool: training pictures.
        settings: the recipe.
    """

    def __init__(self, model: ViTModel, pool: SubjectViews, settings: ImageSettings) -> None:
        super().__init__()
        self.trunk, self.model = model.layers, model
        self.pool, self.settings = pool, settings

    def losses(self, step: int) -> Losses:
        """The loss of one step, a function of its counter."""
        rng = scene_generator(TRAINING_SEED, step, stream=73)
        count, views = self.pool.frames.shape[:2]
        subjects = np.repeat(rng.choice(count, size=self.settings.subjects, replace=False), 2)
        chosen = np.concatenate([rng.choice(views, size=2, replace=False) for _ in subjects[::2]])
        pictures = torch.from_numpy(self.pool.frames[subjects, chosen]).permute(0, 3, 1, 2).float() / 255.0
        pictures = damaged(pictures, torch.Generator().manual_seed(int(rng.integers(2**62))))
        with torch.autocast("cpu", torch.bfloat16):
            tokens = self.model(pixel_values=(pictures - _MEAN) / _STD).last_hidden_state[:, 0]
        return {"contrast": partner_loss(functional.normalize(tokens.float(), dim=1))}

    def take(self, values: dict[str, Tensor]) -> None:
        """Set the parameters, for example to their averages."""
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                parameter.copy_(values[name])


def publish(model: ViTModel, target: Path) -> None:
    """Write model and image processor as one folder, in half precision; the model itself stays fp32.

    Args:
        model: with averaged weights.
        target: the folder.
    """
    temporary = target.with_name(f".{target.name}.partial")
    shutil.rmtree(temporary, ignore_errors=True)
    model.half().save_pretrained(temporary, safe_serialization=True)
    model.float()
    build_image_processor().save_pretrained(temporary)
    replace_folder(temporary, target)


def train(start: ViTModel, piece: Piece, pool: SubjectViews, settings: ImageSettings, target: Path) -> int:
    """Train one piece and publish.

    Args:
        start: what the first piece starts from.
        piece: checkpoints and deadline.
        pool: training pictures, as :func:`pipeline_lib.pocket.identity_encoder.subject_pool` makes them.
        settings: the recipe.
        target: the folder to write.

    Returns:
        Steps done.
    """
    training = ImageTraining(start, pool, settings)
    recipe = NetworkSettings(steps=settings.steps, peak_rate=settings.peak_rate)
    values, steps = train_network(training, training.losses, piece, recipe)
    training.take(values)
    publish(training.model, target)
    return steps


def image_encoder_figures(folder: Path, groups: int = 8) -> dict[str, dict[str, float | int]]:
    """How often a held-out subject is found again among 64, in a frame of another clip.

    The first dozen of gizmos and held-out creatures, 64 in a group, two frames of each: other background, light,
    motion and moment, size and place, in three of ten with an accessory. The first frame looks for its nearest among
    the 64 second ones.

    Args:
        folder: the image encoder.
        groups: how many groups of 64.

    Returns:
        ``image_top1``: value, 95 % interval, subjects.
    """
    encoder, count = VitEncoder(folder), GROUP * groups
    shown = render_views(held_out_subjects(count - len(GIZMOS)), HELD_OUT_SEED, 2)
    first, second = (encoder.frames(shown.frames[:, view]).unflatten(0, (groups, GROUP)) for view in (0, 1))
    hits = int(((first @ second.mT).argmax(dim=2) == torch.arange(GROUP)).sum())
    low, high = Share(hits, count).interval or (0.0, 1.0)
    return {"image_top1": {"value": round(hits / count, 4), "low": round(low, 4), "high": round(high, 4), "n": count}}
