"""What a caption says, asked of the base's text encoder while it is trained.

A velocity loss teaches a text encoder only slowly which colour belongs to which of two subjects: after 1,700 steps
on that question alone, with 32 captions each, the second subject's colour was still read at .2 (chance .1), after
2,600 at .95. So every token is asked for the words of the whole scene, beside the velocity loss.
"""

from __future__ import annotations

from torch import Tensor, nn

from pipeline_lib.world import vocabulary
from pipeline_lib.world.scene import Scene, Subject

UNKNOWN = -100
"""Index of a word that is not asked for."""

_SUBJECT_WORDS: dict[str, tuple[str, ...]] = {
    "shape": (*vocabulary.SHAPES, "creature"),
    "colour": tuple(vocabulary.COLOURS),
    "texture": tuple(vocabulary.TEXTURES),
    "accessory": tuple(vocabulary.ACCESSORIES),
    "motion": (*vocabulary.MOTIONS, "free"),
}
_SCENE_WORDS: dict[str, tuple[str, ...]] = {
    "backdrop": tuple(vocabulary.BACKGROUNDS),
    "light": tuple(vocabulary.LIGHTS),
    "camera": tuple(vocabulary.CAMERAS),
}
_MOST_SUBJECTS = 2
SUBJECT_SIZES = tuple(len(words) for words in _SUBJECT_WORDS.values())
"""How many words there are for each question about a subject."""
_SIZES = (
    *SUBJECT_SIZES * _MOST_SUBJECTS,
    *(len(words) for words in _SCENE_WORDS.values()),
)
QUESTIONS = len(_SIZES)
"""Words asked for per caption."""


def _subject_answers(subject: Subject, image: bool) -> list[int]:
    said = {
        "shape": subject.shape,
        "colour": subject.colour,
        "texture": subject.texture,
        "accessory": subject.accessory,
        "motion": subject.motion.name,
    }
    return [
        UNKNOWN if image and kind == "motion" else words.index(said[kind]) for kind, words in _SUBJECT_WORDS.items()
    ]


def answers(scene: Scene, image: bool) -> list[int]:
    """The words of a scene.

    Args:
        scene: what the caption describes.
        image: the caption describes one frame: neither motion nor camera is asked for.

    Returns:
        One index per question, :data:`UNKNOWN` for what has no answer.
    """
    found: list[int] = []
    for place in range(_MOST_SUBJECTS):
        there = place < len(scene.subjects)
        found += _subject_answers(scene.subjects[place], image) if there else [UNKNOWN] * len(_SUBJECT_WORDS)
    camera = UNKNOWN if image else _SCENE_WORDS["camera"].index(scene.camera.name)
    backdrop = _SCENE_WORDS["backdrop"].index(scene.backdrop.name)
    return [*found, backdrop, _SCENE_WORDS["light"].index(scene.light), camera]


class WordHeads(nn.Module):
    """Linear readings of a scene's words from every token of its caption.

    Args:
        width: of the embeddings.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = nn.Linear(width, sum(_SIZES))

    def forward(self, embeddings: Tensor, mask: Tensor, asked: Tensor) -> Tensor:
        """Cross-entropy, the mean over questions.

        Args:
            embeddings: of the text encoder, shape (B, L, width).
            mask: 1 for real tokens, shape (B, L).
            asked: indices of words, shape (B, QUESTIONS).

        Returns:
            Scalar; questions that nobody is asked count as 0.
        """
        real = mask.bool()
        tokens = self.heads(embeddings[real].float())
        answered = asked[:, None].expand(-1, mask.shape[1], -1)[real]
        total = tokens.new_zeros(())
        for logits, words in zip(tokens.split(_SIZES, dim=-1), answered.unbind(-1), strict=True):
            count = (words != UNKNOWN).sum().clamp_min(1)
            loss = nn.functional.cross_entropy(logits, words, ignore_index=UNKNOWN, reduction="sum")
            total = total + loss / count
        return total / QUESTIONS
