"""One process of two, which adds up and agrees; the second one dies, and what they found goes to files."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pipeline_lib.training.ranks import PeerLostError, Ranks, joined


def exchanged(ranks: Ranks) -> dict[str, Any]:
    """The first parameter has a gradient in both, the second in the first one alone, the third in none."""
    parameters = [nn.Parameter(torch.zeros(shape)) for shape in ((2, 3), (4,), (1,))]
    parameters[0].grad = torch.full((2, 3), float(ranks.rank + 1))
    if ranks.first:
        parameters[1].grad = torch.arange(4.0)
    sums = ranks.add_up(parameters, {"loss": torch.tensor(0.25), "part": torch.tensor(float(ranks.rank))})
    return {
        "gradients": [None if one.grad is None else one.grad.flatten().tolist() for one in parameters],
        "metrics": {name: float(value) for name, value in sums.items()},
        "agreed": [ranks.agreed(False), ranks.agreed(ranks.rank == 1)],
    }


def main(folder: Path, ranks: Ranks) -> None:
    torch.set_num_threads(1)
    with joined(ranks, folder / "meeting", torch.device("cpu")):
        found = exchanged(ranks)
        try:
            if not ranks.first:
                (folder / "1.json").write_text(json.dumps(found))
                os.kill(os.getpid(), signal.SIGKILL)
            ranks.agreed(False)
        except PeerLostError as error:
            (folder / "0.json").write_text(json.dumps(found))
            (folder / "lost").write_text(str(error))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Ranks(int(sys.argv[2]), 2))
