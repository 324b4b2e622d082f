"""Recipe of the pocket identity encoder: subject crops, margin softmax over many subjects."""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline_lib.features.identity import (
    IdentityConfig,
    IdentityNetwork,
    save_identity,
    subject_boxes,
    subject_crops,
    whole_boxes,
)
from pipeline_lib.pocket.contrastive import partner_loss
from pipeline_lib.pocket.identity_figures import measured_threshold
from pipeline_lib.pocket.judge.augmentation import damaged
from pipeline_lib.pocket.judge.training import Losses, NetworkSettings, train_network
from pipeline_lib.pocket.pieces import Piece
from pipeline_lib.pocket.publishing import replace_folder
from pipeline_lib.pocket.subject_views import SubjectViews, cached_views, training_subjects
from pipeline_lib.pocket.world_settings import SIZE, TRAINING_SEED
from pipeline_lib.world.sampling import scene_generator

_SCALE = 24.0


@dataclass(frozen=True, kw_only=True)
class IdentitySettings:
    """How the identity encoder is trained.

    Attributes:
        steps: optimizer steps in all.
        subjects: subjects per step, two views each.
        twins: near-twins among them, each beside the subject that it resembles.
        margin: ArcFace's additive angle in radians; it grows to this over the first third.
        creatures: creatures of the training pool; every plain shape comes on top.
        pool_twins: how many creatures of the pool have a near-twin that is another subject.
        views: views of each subject in the pool.
        peak_rate: peak learning rate.
    """

    steps: int = 1250
    subjects: int = 80
    twins: int = 16
    margin: float = 0.25
    creatures: int = 2000
    pool_twins: int = 700
    views: int = 8
    peak_rate: float = 4e-3


def subject_pool(path: Path, settings: IdentitySettings) -> SubjectViews:
    """The training pool, from disk or rendered: plain shapes, creatures, near-twins of the first creatures."""
    subjects = training_subjects(TRAINING_SEED, settings.creatures, settings.pool_twins)
    return cached_views(path, subjects, TRAINING_SEED, settings.views)


class MarginSoftmax(nn.Module):
    """ArcFace (Deng et al., 2019): softmax over cosines to one direction per class, the true angle enlarged.

    Args:
        classes: how many subjects.
        embedding: numbers of an embedding.
    """

    def __init__(self, classes: int, embedding: int) -> None:
        super().__init__()
        self.directions = nn.Parameter(torch.randn(classes, embedding) / math.sqrt(embedding))

    def forward(self, embedding: Tensor, labels: Tensor, margin: float) -> Tensor:
        """The loss.

        Args:
            embedding: unit vectors, shape (N, D).
            labels: classes, shape (N,).
            margin: in radians.

        Returns:
            Scalar.
        """
        cosine = embedding @ functional.normalize(self.directions, dim=1).T
        true = cosine.gather(1, labels[:, None]).clamp(-1.0 + 1e-5, 1.0 - 1e-5)
        widened = torch.cos(torch.acos(true) + margin)
        # Beyond a half turn the cosine rises again; there the loss goes on in a straight line.
        widened = torch.where(true > math.cos(math.pi - margin), widened, true - margin * math.sin(margin))
        return functional.cross_entropy(_SCALE * cosine.scatter(1, labels[:, None], widened), labels)


class IdentityTraining(nn.Module):
    """Network and classes as one module, and the losses of a step.

    Args:
        config: shape of the network.
        pool: training pictures.
        settings: the recipe.
    """

    def __init__(self, config: IdentityConfig, pool: SubjectViews, settings: IdentitySettings) -> None:
        super().__init__()
        self.pool, self.settings = pool, settings
        self.network = IdentityNetwork(config)
        self.classes = MarginSoftmax(len(pool.frames), config.embedding)
        self.crop_size = config.crop_size

    def _chosen(self, rng: np.random.Generator) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
        """Numbers of subjects: some beside their near-twins, the others without one."""
        count, twins, paired = len(self.pool.frames), self.settings.twins, self.settings.pool_twins
        first = count - paired - self.settings.creatures
        pairs = rng.choice(paired, size=twins, replace=False)
        alone = np.concatenate([np.arange(first), np.arange(first + paired, count - paired)])
        others = rng.choice(alone, size=self.settings.subjects - 2 * twins, replace=False)
        return np.concatenate([first + pairs, count - paired + pairs, others])

    def losses(self, step: int) -> Losses:
        """The losses of one step, a function of its counter."""
        rng = scene_generator(TRAINING_SEED, step, stream=72)
        labels = np.repeat(self._chosen(rng), 2)
        views = np.concatenate([rng.choice(self.settings.views, size=2, replace=False) for _ in labels[::2]])
        pictures = torch.from_numpy(self.pool.frames[labels, views]).permute(0, 3, 1, 2).float() / 255.0
        masks = torch.from_numpy(self.pool.masks[labels, views]).float()
        pictures = damaged(pictures, torch.Generator().manual_seed(int(rng.integers(2**62))))
        shown, boxes = varied_masks(masks, rng)
        crops = subject_crops(pictures, shown, boxes, self.crop_size)
        with torch.autocast("cpu", torch.bfloat16):
            embedding = self.network(crops)
        margin = self.settings.margin * min(1.0, 3.0 * step / self.settings.steps)
        arc = self.classes(embedding, torch.from_numpy(labels), margin)
        # The contrastive term starts the network off long before 3,000 class directions are learnt.
        return {"arcface": 0.25 * arc, "contrast": partner_loss(embedding)}


def varied_masks(masks: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Masks and boxes as in use: mostly right, some too wide or too narrow, some not there at all.

    Args:
        masks: true masks, none empty, shape (N, H, W).
        rng: source of the draw.

    Returns:
        Masks, and boxes (N, 4) a little beside the right ones.
    """
    count = len(masks)
    wide = functional.max_pool2d(masks[:, None], 3, 1, 1)[:, 0]
    narrow = 1.0 - functional.max_pool2d(1.0 - masks[:, None], 3, 1, 1)[:, 0]
    kind = torch.from_numpy(rng.choice(4, size=count, p=[0.5, 0.2, 0.1, 0.2]))[:, None, None]
    shown = torch.where(kind == 1, wide, torch.where(kind == 2, narrow, masks))
    boxes = subject_boxes(shown)
    boxes = torch.where(boxes.isnan(), subject_boxes(masks), boxes)
    side = boxes[:, 2:3] - boxes[:, :1]
    draws = torch.from_numpy(rng.standard_normal((count, 4)).astype(np.float32))
    offset = torch.cat([draws[:, :2] - 0.7 * draws[:, 2:3], draws[:, :2] + 0.7 * draws[:, 2:3]], dim=1)
    boxes = boxes + 0.03 * side * offset
    nothing = kind == 3
    shown = torch.where(nothing, torch.ones_like(shown), shown)
    return shown, torch.where(nothing[:, 0], whole_boxes(count, SIZE, SIZE), boxes)


def train(piece: Piece, pool: SubjectViews, settings: IdentitySettings, target: Path) -> int:
    """Train one piece and publish.

    Args:
        piece: checkpoints and deadline.
        pool: training pictures.
        settings: the recipe.
        target: the folder to write.

    Returns:
        Steps done.
    """
    torch.manual_seed(TRAINING_SEED)
    config = IdentityConfig()
    training = IdentityTraining(config, pool, settings)
    recipe = NetworkSettings(steps=settings.steps, peak_rate=settings.peak_rate)
    values, steps = train_network(training, training.losses, piece, recipe)
    weights = {name.removeprefix("network."): value for name, value in values.items() if name.startswith("network.")}
    temporary = target.with_name(f".{target.name}.partial")
    shutil.rmtree(temporary, ignore_errors=True)
    save_identity(temporary, config, weights)
    save_identity(temporary, replace(config, threshold=round(measured_threshold(temporary), 4)), weights)
    replace_folder(temporary, target)
    return steps
