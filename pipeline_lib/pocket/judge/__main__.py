"""Train the judge, or measure it and the zoo: ``python -m pipeline_lib.pocket.judge [train] [--json]``."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path

from pipeline_lib.pocket.judge import bars, ceilings, recipe, zoo_figures
from pipeline_lib.pocket.judge.decoded import load_autoencoder, round_trip
from pipeline_lib.pocket.judge.identity import CONCEPTS, Gallery
from pipeline_lib.pocket.judge.judge import DESIGNS, Judge, judge_path
from pipeline_lib.pocket.judge.tally import Share
from pipeline_lib.pocket.zoo import zoo_root
from pipeline_lib.world.gizmos import CONFIRMATION, dozen

_PICTURE = slice(6, 7)  # the middle frame


def _plain(shares: Mapping[str, Share]) -> dict[str, object]:
    return {name: share.record() for name, share in shares.items()}


@cache
def _through_autoencoder() -> ceilings.Change | None:
    """What the pocket base's autoencoder makes of frames; None where it is not published."""
    folder = zoo_root() / "base" / "vae"
    return partial(round_trip, load_autoencoder(folder)) if folder.is_dir() else None


def gallery_figures(judge: Judge, gallery: Gallery, clips: int, concepts: range) -> dict[str, object]:
    """How well gizmos of one dozen are told from each other and from everybody else.

    Args:
        judge: who reads.
        gallery: of the same judge.
        clips: impostors per kind.
        concepts: of that dozen, whose chance and ceiling are measured.

    Returns:
        Plain data for JSON.
    """
    change = _through_autoencoder()
    return {
        "chance": ceilings.chance(judge, gallery, concepts),
        "ceiling": ceilings.ceilings(judge, gallery, concepts=concepts),
        "false_accepts": _plain(bars.impostor_bars(judge, gallery, clips, dozen(concepts.start))),
        "decoded_ceiling": None if change is None else ceilings.ceilings(judge, gallery, change, concepts),
    }


def judge_figures(clips: int, concepts: range) -> dict[str, object]:
    """The judge's own bars.

    Args:
        clips: held-out clips, pictures without a subject per kind, and impostors per kind.
        concepts: of one dozen, whose chance and ceiling are measured.

    Returns:
        Plain data for JSON.
    """
    judge, drawn = Judge.load("first"), bars.HeldOutClips.draw(clips)
    gallery = Gallery.load(recipe.gallery_path("first"))
    readings = bars.read_all(judge, drawn)
    figures: dict[str, object] = {
        "digest": judge.digest,
        "left_out": _plain(bars.left_out(drawn)),
        "clips": _plain(bars.attribute_bars(readings, drawn)),
        "pictures": _plain(bars.attribute_bars(bars.read_all(judge, drawn, frames=_PICTURE), drawn, _PICTURE)),
        "abstention": _plain(bars.abstention(judge, clips)),
        "tracks": bars.pose_errors(readings, drawn),
        "threshold": round(gallery.threshold, 4),
        **gallery_figures(judge, gallery, clips, concepts),
        "decoded_clips": None,
        "agreement": None,
    }
    change = _through_autoencoder()
    if change is not None:
        decoded = bars.read_all(judge, drawn, change)
        figures["decoded_clips"] = _plain(bars.attribute_bars(decoded, drawn))
    if judge_path("second").exists():
        second = bars.read_all(Judge.load("second"), drawn)
        figures["agreement"] = _plain(bars.agreement(readings, second))
        figures["second_clips"] = _plain(bars.attribute_bars(second, drawn))
    return figures


def _print_plainly(figures: Mapping[str, object], indent: str = "") -> None:
    for name, value in figures.items():
        if isinstance(value, Mapping) and "count" not in value:
            print(f"{indent}{name}")
            _print_plainly(value, indent + "  ")
        elif isinstance(value, Mapping):
            print(f"{indent}{name:16} {value['value']}  {value['interval']}  of {value['count']}")
        else:
            print(f"{indent}{name:16} {'–' if value is None else value}")


def _measure(arguments: argparse.Namespace) -> None:
    figures: dict[str, object] = {}
    if arguments.part in ("all", "zoo"):
        figures |= zoo_figures.zoo_figures(Judge.load("first"), arguments.prompts)
    if arguments.part in ("all", "judge"):
        figures["judge"] = judge_figures(arguments.clips, dozen(0)[: arguments.concepts])
    if arguments.part == "confirmation":
        judge, gallery = Judge.load("first"), Gallery.load(recipe.gallery_path("first"))
        concepts = dozen(CONFIRMATION[0])[: arguments.concepts]
        figures["confirmation"] = gallery_figures(judge, gallery, arguments.clips, concepts)
    if arguments.json:
        print(json.dumps(figures, indent=1))
    else:
        _print_plainly(figures)


def _train(arguments: argparse.Namespace) -> None:
    work = arguments.work / "judge"
    place = recipe.Workplace(work, tuple(arguments.autoencoder), arguments.work / "clips")
    for name in DESIGNS if arguments.name == "both" else (arguments.name,):
        done = recipe.train(name, place, recipe.JudgeSettings(), arguments.minutes)
        print(f"judge {name}: steps {done}")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m pipeline_lib.pocket.judge", description=__doc__)
    parser.add_argument("action", nargs="?", choices=("measure", "train"), default="measure")
    parser.add_argument("--json", action="store_true", help="figures as JSON")
    parser.add_argument(
        "--part",
        choices=("all", "judge", "zoo", "confirmation"),
        default="all",
        help="what is measured; confirmation: how the judge tells the second dozen of gizmos (not in `all`)",
    )
    parser.add_argument("--clips", type=int, default=256, help="held-out clips, and pictures of each empty kind")
    parser.add_argument(
        "--concepts", type=int, choices=range(CONCEPTS + 1), default=CONCEPTS, help="gizmos for chance and ceiling"
    )
    parser.add_argument("--prompts", type=int, default=256, help="prompts per kind for the base; 0: none")
    parser.add_argument("--name", choices=("both", *DESIGNS), default="both", help="which judge is trained")
    parser.add_argument("--minutes", type=float, default=60.0, help="length of this piece, per judge")
    parser.add_argument("--work", type=Path, default=Path("pocket_work"), help="checkpoints, caches")
    parser.add_argument("--autoencoder", type=Path, action="append", default=[], help="trained on too; repeatable")
    arguments = parser.parse_args()
    (_train if arguments.action == "train" else _measure)(arguments)


if __name__ == "__main__":
    main()
