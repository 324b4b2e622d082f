"""The pocket captioner's language: the question it is asked, the answers it gives, and its tokens."""

from __future__ import annotations

from collections.abc import Iterator

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from pipeline_lib.captions.vlm import QUESTION
from pipeline_lib.world import phrases, vocabulary
from pipeline_lib.world.scene import Scene, Subject

PAD, END, ANSWER = "<|pad|>", "<|end|>", "<|answer|>"
VISION_START, VISION_END = "<|vision_start|>", "<|vision_end|>"
IMAGE, VIDEO = "<|image_pad|>", "<|video_pad|>"
SPECIALS = (PAD, END, ANSWER, VISION_START, VISION_END, IMAGE, VIDEO)
CHAT_TEMPLATE = (
    "{% for message in messages %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}" + VISION_START + IMAGE + VISION_END + "{% elif part['type'] == 'video' %}"
    "" + VISION_START + VIDEO + VISION_END + "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}" + ANSWER + "{% endif %}"
)
FIELDS = ("static", "motion", "camera", "background", "light")
SILENCE = "{}"
"""The whole answer where the pictures are not of the pocket world."""
NONE = "none"
FREE_MOTION = "moving"

_OPENINGS = ('{"static": "', '", "motion": "', '", "camera": "', '", "background": "', '", "light": "', '"}')
_WITH, _AND = " with ", " and "
_ANTENNAE = ("an antenna", "antennae")
_ACCESSORIES = {word: f", {said[0].format('')}" for word, said in phrases.ACCESSORY_PHRASES.items() if word != "none"}
_BESIDE = ", next to a "


def question(noun: str, moving: bool) -> str:
    """What the vision-language captioner asks.

    Args:
        noun: bare noun of the subject.
        moving: about a video, not a picture.

    Returns:
        The question, word for word.
    """
    return QUESTION.format(kind="video" if moving else "picture", subject=noun)


def _details(subject: Subject) -> str:
    """Eyes and antennae of a creature; glasses are painted in place of the eyes."""
    said = [] if subject.accessory == "glasses" else [phrases.EYE_PHRASES[subject.eyes]]
    if subject.antennae:
        said.append(_ANTENNAE[subject.antennae > 1])
    return _WITH + _AND.join(said) if said else ""


def static_words(scene: Scene, which: int) -> str:
    """How a subject looks, in canonical words, its noun left out: the caption says that apart.

    Args:
        scene: the scene; the other subject of a pair is named in passing.
        which: index of the subject.

    Returns:
        For example ``striped red and white with two eyes and antennae, wearing a hat``.
    """
    subject = scene.subjects[which]
    words = "" if subject.texture == "plain" else f"{subject.texture} "
    words += subject.colour
    if subject.kind == "creature":
        words += f"{_AND}{subject.second_colour}{_details(subject)}"
    words += _ACCESSORIES.get(subject.accessory, "")
    for other in scene.subjects[:which] + scene.subjects[which + 1 :]:
        words += f"{_BESIDE}{other.colour} {other.shape}"
    return words


def motion_words(subject: Subject) -> str:
    """How a subject moves, in canonical words; a free motion is only said to move."""
    name = subject.motion.name
    return FREE_MOTION if name == "free" else phrases.MOTION_PHRASES[name][0]


def answer(scene: Scene, which: int, moving: bool) -> str:
    """The canonical answer.

    Args:
        scene: what is seen.
        which: the subject that is asked about.
        moving: a video is shown, not pictures.

    Returns:
        One JSON object with the fields of ``FIELDS``.
    """
    values = (
        static_words(scene, which),
        motion_words(scene.subjects[which]) if moving else NONE,
        phrases.CAMERA_PHRASES[scene.camera.name][0] if moving else NONE,
        phrases.BACKGROUND_PHRASES[scene.backdrop.name][0],
        phrases.LIGHT_PHRASES[scene.light][0],
    )
    return "".join(f"{opening}{value}" for opening, value in zip(_OPENINGS, (*values, ""), strict=True))


def nouns() -> tuple[str, ...]:
    """All words for shapes and creatures, each once."""
    return tuple(dict.fromkeys(word for said in phrases.SHAPE_PHRASES.values() for word in said))


def scaffold() -> tuple[str, ...]:
    """Pieces of an answer that are always the same, and so teach nothing."""
    return (*_OPENINGS, END)


def _pieces() -> Iterator[str]:
    for moving in (True, False):
        yield from question("\0", moving).split("\0")
    yield from _OPENINGS
    yield from (
        SILENCE,
        NONE,
        FREE_MOTION,
        _BESIDE,
        _AND,
        _WITH,
        *_ANTENNAE,
        *phrases.EYE_PHRASES.values(),
        *_ACCESSORIES.values(),
    )
    yield from (f"{texture} " for texture in vocabulary.TEXTURES[1:])
    yield from vocabulary.COLOURS
    yield from nouns()
    yield from (f" {shape}" for shape in (*vocabulary.SHAPES, "creature"))
    tables = (phrases.MOTION_PHRASES, phrases.CAMERA_PHRASES, phrases.BACKGROUND_PHRASES, phrases.LIGHT_PHRASES)
    for table in tables:
        yield from (said[0] for said in table.values())


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Bytes, and one token for each phrase of the question and the answers: a caption is some twenty tokens.

    Returns:
        A fast tokenizer; any text survives a round trip.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({symbol: index for index, symbol in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in SPECIALS])
    tokenizer.add_tokens([AddedToken(piece, normalized=False) for piece in dict.fromkeys(_pieces())])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        extra_special_tokens=list(SPECIALS[2:]),
        clean_up_tokenization_spaces=False,
    )
