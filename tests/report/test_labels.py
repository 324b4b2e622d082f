"""Labels of a chart's dots can be read: they lie on nothing, and each is nearest to its own dot."""

from __future__ import annotations

import math

from pipeline_lib.report.labels import DOT, Box, labels_apart

ROOM = Box(52, 28, 520, 300)
CROWDED = {
    "two_stage": (130.0, 80.0),
    "lora-8": (177.0, 85.0),
    "dreammix": (229.0, 110.0),
    "set_and_sequence": (254.0, 115.0),
    "as-preset": (276.0, 98.0),
    "textual_inversion": (450.0, 290.0),
    "Base": (470.0, 290.0),
}


def test_labels_of_crowded_dots_lie_on_no_label_and_on_no_dot() -> None:
    boxes = labels_apart(CROWDED, [], ROOM)
    assert boxes.keys() == CROWDED.keys()
    names = sorted(boxes)
    for index, one in enumerate(names):
        assert boxes[one].shared(ROOM) == boxes[one].area, f"{one} leaves the picture"
        assert not any(boxes[one].shared(boxes[other]) for other in names[index + 1 :]), one
        assert not any(boxes[one].shared(Box(x - DOT, y - DOT, x + DOT, y + DOT)) for x, y in CROWDED.values()), one
    for label, box in boxes.items():
        away = {name: math.dist(spot, box.nearest(*spot)) for name, spot in CROWDED.items()}
        assert away[label] == min(away.values()), f"{label} stands at another's dot: {away}"


def test_a_bar_moves_a_label_to_a_free_side() -> None:
    spot = {"one": (250.0, 150.0)}
    free, barred = labels_apart(spot, [], ROOM)["one"], labels_apart(spot, [Box(250, 140, 400, 160)], ROOM)["one"]
    assert free.left > 250 > barred.right
    assert labels_apart(spot, [], ROOM) == labels_apart(spot, [], ROOM)


def test_boxes_that_do_not_meet_share_nothing() -> None:
    assert Box(0, 0, 2, 2).shared(Box(1, 1, 4, 4)) == 1
    assert Box(0, 0, 2, 2).shared(Box(3, 3, 4, 4)) == 0
    assert Box(0, 0, 2, 2).nearest(5, 1) == (2, 1)
