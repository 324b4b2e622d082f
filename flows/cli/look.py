"""Commands that look and tidy: `init`, `runs`, `show`, `bases`, `prune`."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

from flows.cli.output import put, put_json, put_table
from pipeline_lib.drops.places import known_homes
from pipeline_lib.errors import InputError
from pipeline_lib.run_config import RunConfig, config_text
from pipeline_lib.steps.run_folder import RunRecord, all_runs, find_run
from pipeline_lib.steps.state import StateFolder
from pipeline_lib.storage import write_atomic

KEPT_KINDS = ("clips", "captions", "masks", "stage", "samples", "scores", "concept", "report")
_LOG = re.compile(r"([a-z]+)-([0-9a-f]{8}|\d{8}-\d{6})\.log")  # of one command; those of services are kept short


def init_config(path: Path) -> None:
    """Writes a config with every key, its default and its meaning.

    Args:
        path: of the new file; missing folders are made.

    Raises:
        InputError: there is a file already.
    """
    if path.exists():
        raise InputError(f"{path} is there already", fix="name another file")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, config_text(RunConfig()))
    put(f"{path}: set concept.inputs and concept.subject, then: mannerism run {path}")


def list_runs(*, as_json: bool) -> None:
    """All runs, oldest first."""
    records = list(all_runs(StateFolder.open()))
    if as_json:
        put_json({"runs": [_facts(record) for record in records]})
    elif records:
        put_table([_facts(record) for record in records])
    else:
        put("no runs yet; try: mannerism demo")


def show_run(name: str, *, as_json: bool) -> None:
    """One run: its outputs, its scores, its stages."""
    state = StateFolder.open()
    folder = find_run(state, name)
    record = folder.record()
    if record is None:
        raise InputError(f"{folder.path} holds no run that can be read", fix="run its config again")
    result = folder.result(record)
    if as_json:
        put_json({**record.model_dump(mode="json"), **result.model_dump(mode="json")})
        return
    put_table([_facts(record)])
    if record.status == "done":
        from flows.cli.run import tell

        put()
        tell(result)
    elif record.error:
        put(f"  error    {record.error}")
    if record.status != "done":
        put(f"  go on with: mannerism resume {record.run_id}")


def list_bases(*, as_json: bool) -> None:
    """Named bases, families and methods."""
    from pipeline_lib.models.families import FAMILIES
    from pipeline_lib.registry import BASES, method_names

    named = [{"base": name, **_base_facts(base.folder), "where": str(base.folder)} for name, base in BASES.items()]
    families = [
        {
            "family": family.name,
            "examples": family.examples,
            "sizes": family.sizes,
            "licence": family.licence,
        }
        for family in FAMILIES.values()
    ]
    if as_json:
        put_json({"bases": named, "families": families, "methods": method_names()})
        return
    put_table(named)
    put()
    for family in FAMILIES.values():
        put(f"{family.name}: {family.licence}")
        put(f"  {family.sizes}")
        for example in family.examples:
            put(f"  {example}")
        put()
    put(f"methods: {', '.join(method_names())}")


def prune_state(older_than_days: float, *, drops: bool, dry_run: bool, as_json: bool) -> None:
    """Deletes what can be made again cheaply enough: latents, prior sets, leftovers, checkpoints of stages, old logs.

    Args:
        older_than_days: since the last use; of a drop, since its end.
        drops: whether those in `done` and `rejected` go too.
        dry_run: only tell.
        as_json: for programs.
    """
    state, older_than = StateFolder.open(), timedelta(days=older_than_days)
    pruned = [item.model_dump() for item in state.store.prune(older_than, keep_kinds=KEPT_KINDS, dry_run=dry_run)]
    for path, facts in _leftovers(state, drops=drops):
        with suppress(FileNotFoundError):  # it moves on, or another one deletes it
            if path.stat().st_mtime > time.time() - older_than.total_seconds():
                continue
            pruned.append({**facts, "size": sum(item.lstat().st_size for item in (path, *path.rglob("*")))})
            if not dry_run and path.is_dir():
                shutil.rmtree(path)
            elif not dry_run:
                path.unlink()
    size = sum(item["size"] for item in pruned)
    if as_json:
        put_json({"dry_run": dry_run, "bytes": size, "pruned": pruned})
        return
    for item in pruned:
        put(f"  {item['place']:10} {item['kind']:10} {item['key'][:24]:24}  {item['size'] / 1e6:.1f} MB")
    put(f"{'would delete' if dry_run else 'deleted'} {len(pruned)} folders and logs, {size / 1e6:.1f} MB")


def _leftovers(state: StateFolder, *, drops: bool) -> Iterator[tuple[Path, dict[str, Any]]]:
    """What grows beside the store, with the words by which it is told."""
    for path in sorted(state.logs.glob("*.log")):
        if match := _LOG.fullmatch(path.name):
            yield path, {"place": "logs", "kind": match[1], "key": match[2]}
    for home in known_homes(state) if drops else []:
        for kind in ("done", "rejected"):
            for path in sorted((home / kind).glob("*")):
                yield path, {"place": "drops", "kind": kind, "key": path.name}


def _facts(record: RunRecord) -> dict[str, Any]:
    method = record.plan.method if record.plan else record.config.method.name
    return {
        "run": record.run_id,
        "status": record.status,
        "method": method,
        "base": record.config.base.source,
        "started": record.started,
    }


def _base_facts(folder: Path) -> dict[str, str]:
    from pipeline_lib.models.families import family_of
    from pipeline_lib.models.folder import PipelineFolder

    if not (folder / "model_index.json").is_file():
        return {"family": "", "licence": "not installed"}
    base = PipelineFolder(folder)
    card = base.card()
    return {"family": family_of(base).name, "licence": card.licence if card else ""}
