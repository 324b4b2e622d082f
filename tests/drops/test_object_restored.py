"""A drop of an object store whose cancelled run ended well after all, with a death after every act."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import pytest

from pipeline_lib.drops.intake import Outcome
from tests.drops.test_object_inbox import WOLF, DiedError, StoreService, media, mortal


@pytest.mark.timeout(900)
def test_a_cancelled_run_that_ends_well_after_all_takes_its_drop_to_done_whatever_dies(tmp_path: Path) -> None:
    for lives in count(1):
        service = StoreService(tmp_path / str(lives))
        service.drop("wolf", WOLF)
        service.intake.turn()
        service.end(Outcome("refused", "its run was cancelled"))
        assert len(service.here("rejected")) == len(WOLF) + 1
        (run,) = service.dispatcher.configs
        service.dispatcher.states[run] = Outcome("well")
        died = False
        with pytest.MonkeyPatch.context() as patch:
            service.again()
            mortal(patch, lives)
            try:
                service.intake.turn()
            except DiedError:
                died = True
        service.again()
        service.intake.turn()
        (entry,) = service.ledger.entries()
        assert entry.state == "done", lives
        assert service.here("rejected") == {}, lives
        assert service.here("done") == media(f"wolf-{entry.digest[:12]}", WOLF), lives
        assert not list(service.inbox.rejected.iterdir()), lives
        assert len(list(service.inbox.input(entry.key).iterdir())) == len(WOLF), lives
        service.files.store.clear()
        if not died:
            assert lives > 5
            return
