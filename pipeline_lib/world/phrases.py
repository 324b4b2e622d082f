"""Synonyms: what each word of the vocabulary may be called. The first phrase is canonical."""

from __future__ import annotations

from pipeline_lib.world.scene import Motion

COLOUR_PHRASES: dict[str, tuple[str, ...]] = {
    "red": ("red",),
    "orange": ("orange",),
    "yellow": ("yellow",),
    "green": ("green",),
    "cyan": ("cyan", "turquoise"),
    "blue": ("blue",),
    "purple": ("purple", "violet"),
    "pink": ("pink",),
    "brown": ("brown",),
    "white": ("white",),
}
SHAPE_PHRASES: dict[str, tuple[str, ...]] = {
    "circle": ("circle", "ball"),
    "square": ("square", "box"),
    "triangle": ("triangle",),
    "star": ("star",),
    "heart": ("heart",),
    "cross": ("cross", "plus sign"),
    "ring": ("ring",),
    "moon": ("moon", "crescent"),
    "creature": ("creature", "creature", "creature", "little monster"),
}
TEXTURE_PHRASES: dict[str, tuple[str, ...]] = {
    "plain": ("plain",),
    "striped": ("striped", "stripy"),
    "dotted": ("dotted", "spotted"),
    "checkered": ("checkered", "chequered"),
}
ACCESSORY_PHRASES: dict[str, tuple[str, ...]] = {
    "none": ("",),
    "hat": ("wearing a {}hat", "with a {}hat", "in a {}hat"),
    "scarf": ("wearing a {}scarf", "with a {}scarf"),
    "glasses": ("wearing glasses", "with glasses"),
    "balloon": ("holding a {}balloon", "with a {}balloon"),
}
MOTION_PHRASES: dict[str, tuple[str, ...]] = {
    "still": ("standing still", "staying still", "not moving"),
    "bouncing": ("bouncing", "bouncing up and down", "jumping up and down"),
    "spinning": ("spinning", "spinning around", "rotating"),
    "swaying": ("swaying", "swaying from side to side", "rocking"),
    "sliding left": ("sliding left", "sliding to the left", "gliding left"),
    "sliding right": ("sliding right", "sliding to the right", "gliding right"),
    "pulsing": ("pulsing", "growing and shrinking"),
    "orbiting": ("orbiting", "moving in a circle", "circling around"),
    "zigzagging": ("zigzagging", "moving in a zigzag"),
    "shaking": ("shaking", "trembling"),
}
BACKGROUND_PHRASES: dict[str, tuple[str, ...]] = {
    "beach": ("on a beach", "at the beach", "on the beach"),
    "forest": ("in a forest", "in the woods", "in the forest"),
    "snow": ("on a snowy field", "in the snow", "in a snowy landscape"),
    "city": ("in a city", "on a city street", "in the city"),
    "desert": ("in a desert", "in the desert", "among the dunes"),
    "underwater": ("underwater", "under the sea", "in the deep sea"),
    "room": ("in a room", "indoors", "in a living room"),
    "space": ("in space", "in outer space"),
}
LIGHT_PHRASES: dict[str, tuple[str, ...]] = {
    "day": ("in daylight", "by day"),
    "dusk": ("at dusk", "at sunset"),
    "night": ("at night", "in the dark night"),
}
CAMERA_PHRASES: dict[str, tuple[str, ...]] = {
    "static": ("static camera", "the camera does not move"),
    "pan left": ("the camera pans left", "camera panning left"),
    "pan right": ("the camera pans right", "camera panning right"),
    "zoom in": ("the camera zooms in", "camera zooming in"),
}
EYE_PHRASES = {1: "one eye", 2: "two eyes", 3: "three eyes", 4: "four eyes"}


def free_motion_phrases(motion: Motion) -> tuple[str, ...]:
    """What a random motion may be called: always general words, and what stands out in it.

    Args:
        motion: A motion named ``"free"``.

    Returns:
        Phrases, the canonical one first.
    """
    phrases = ["moving", "moving around", "dancing"]
    if any(harmonic.wave == "hop" for harmonic in motion.vertical.harmonics):
        phrases += ["hopping", "hopping about"]
    if abs(motion.angle.drift) > 1.0:
        phrases.append("tumbling")
    elif motion.angle.harmonics:
        phrases.append("wiggling")
    if motion.stretch.harmonics:
        phrases.append("squashing and stretching")
    return tuple(phrases)
