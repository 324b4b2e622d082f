"""`mannerism`: the command line. Commands import what they need when they run, so that help comes at once."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from flows.cli.ending import ended
from pipeline_lib.processes.interrupt import on_signal

app = typer.Typer(
    name="mannerism",
    help="Teach a video model a subject, how it looks and how it moves, from one clip.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)

Set = Annotated[list[str], typer.Option("--set", metavar="KEY=VALUE", help="Any setting, e.g. method.settings.rank=4.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object, last on standard output.")]
Seed = Annotated[int | None, typer.Option(help="Of everything random.")]
Subject = Annotated[str, typer.Option(help="What the subject is, in a word or a few: 'grey wolf'.")]
Base = Annotated[str, typer.Option(help="'pocket', 'pocket-outline', a diffusers folder, or a hub id.")]
Method = Annotated[
    str, typer.Option(help="set_and_sequence, or a baseline: two_stage, lora, textual_inversion or dreammix.")
]
Preset = Annotated[str, typer.Option(help="paper, portable, pocket or demo.")]
Prompts = Annotated[str, typer.Option(help="A file of prompts, one a line, with {subject} in the subject's place.")]
Negative = Annotated[str, typer.Option(help="Negative prompt.")]
Strength = Annotated[float | None, typer.Option(min=0, max=4, help="Strength; 1 is as trained.")]
Lora = Annotated[
    list[str],
    typer.Option(metavar="FILE[:STRENGTH]", help="A LoRA that stays on the base; of two experts high=FILE, low=FILE."),
]
StartLora = Annotated[
    list[str], typer.Option(metavar="FILE[:STRENGTH]", help="A LoRA that training starts from, not from zero.")
]
Mask = Annotated[bool, typer.Option("--mask", help="Train on the subject alone; the base's segmenter finds it.")]
Concept = Annotated[
    str, typer.Argument(metavar="CONCEPT|RUN", help="'wolf' (its champion), 'wolf@3', a run's name, or a folder.")
]
Run = Annotated[str, typer.Argument(metavar="RUN", help="A run's name, or its beginning.")]


@app.callback()
def options(
    state: Annotated[str, typer.Option(envvar="MANNERISM_STATE", help="Where runs, models and databases live.")] = "",
) -> None:
    """Options of all commands."""
    if state:
        os.environ["MANNERISM_STATE"] = str(Path(state).expanduser().resolve())


@app.command()
def init(path: Annotated[Path, typer.Argument(help="Where to write it.")] = Path("mannerism.yaml")) -> None:
    """Write a commented config."""
    from flows.cli.look import init_config

    init_config(path)


@app.command()
def run(
    source: Annotated[str, typer.Argument(metavar="CLIP|FOLDER|CONFIG", help="A clip, images, a folder, or a config.")],
    *,
    subject: Subject = "",
    base: Base = "",
    lora: Lora = [],  # noqa: B006 - typer's way
    start_lora: StartLora = [],  # noqa: B006
    method: Method = "",
    preset: Preset = "",
    mask: Mask = False,
    prompts: Prompts = "",
    negative: Negative = "",
    seed: Seed = None,
    settings: Set = [],  # noqa: B006 - typer's way
    json: Json = False,
) -> None:
    """Learn a subject: clip in, concept, samples, scores and report out."""
    from flows.cli.run import asked_config, run_and_tell

    options = {
        "concept.subject": subject,
        "base.source": base,
        "base.loras": lora or "",
        "method.start": start_lora or "",
        "method.name": method,
        "method.preset": preset,
        "mask.segmenter": "auto" if mask else "",
        "samples.prompts_file": prompts,
        "samples.negative_prompt": negative,
        "seed": "" if seed is None else seed,
    }
    run_and_tell(asked_config(source, options, settings), as_json=json)


@app.command()
def demo(settings: Set = [], json: Json = False) -> None:  # noqa: B006 - typer's way
    """Learn the bundled creature on the bundled base; a few minutes on a laptop."""
    from flows.cli.run import demo_config, run_and_tell

    run_and_tell(demo_config(settings), as_json=json)


@app.command()
def resume(name: Run, json: Json = False) -> None:
    """Go on with a run that was stopped or killed."""
    from flows.cli.run import resume_config, run_and_tell

    run_and_tell(resume_config(name), as_json=json)


@app.command()
def batch(
    sources: Annotated[
        list[str],
        typer.Argument(metavar="FOLDER|CONCEPT...", help="A folder of concepts, or the clips and folders themselves."),
    ],
    config: Annotated[str, typer.Option(help="Base, method and training of every run.")] = "",
    *,
    at_once: Annotated[int, typer.Option(min=1, help="Runs at the same time; on one GPU they take turns.")] = 1,
    deployment: Annotated[
        str, typer.Option(metavar="FLOW/NAME", help="Hand the runs to the workers of `up`; else they run here.")
    ] = "",
    settings: Set = [],  # noqa: B006 - typer's way
    json: Json = False,
) -> None:
    """Learn many subjects, each in a run of its own, with one report; one that fails does not stop the others."""
    from flows.cli.batch import batch_config, run_batch

    template = batch_config(config, settings)
    raise typer.Exit(run_batch(sources, template, at_once=at_once, deployment=deployment, as_json=json))


@app.command()
def compare(
    *,
    methods: Annotated[str, typer.Option(metavar="A,B", help="Which; else the core of six, and the base.")] = "",
    gizmos: Annotated[
        str,
        typer.Option(
            help="Of the pocket world: reporting, tuning, all (both), confirmation, pairs, pairs-tuning, or 0,3,pair:2."
        ),
    ] = "",
    concepts: Annotated[str, typer.Option(metavar="FOLDER", help="Clips and folders, as for batch.")] = "",
    base: Base = "",
    config: Annotated[str, typer.Option(help="Base and training of every run.")] = "",
    preset: Annotated[str, typer.Option(help="Of all methods; else the config's, else demo.")] = "",
    seeds: Annotated[str, typer.Option(help="Of the samples; else the config's, else 0,1,2.")] = "",
    quick: Annotated[bool, typer.Option("--quick", help="One concept, one seed.")] = False,
    ablations: Annotated[
        bool, typer.Option("--ablations", help="Set-and-Sequence, one setting changed at a time.")
    ] = False,
    at_once: Annotated[int, typer.Option(min=1, help="Runs at the same time; on one GPU they take turns.")] = 1,
    tally: Annotated[
        list[Path], typer.Option(metavar="FILE", help="Only count answers that a blind page saved; again for more.")
    ] = [],  # noqa: B006 - typer's way
    settings: Set = [],  # noqa: B006
    json: Json = False,
) -> None:
    """Compare methods on the same concepts, prompts and seeds; what is done already is found."""
    from flows.cli.compare import CompareRequest, compare_config, run_compare, tell_tally

    if tally:
        tell_tally(tally, as_json=json)
        return
    request = CompareRequest(
        methods=methods, gizmos=gizmos, concepts=concepts, quick=quick, ablations=ablations, at_once=at_once
    )
    template = compare_config(config, base, preset, seeds, settings, quick=quick)
    raise typer.Exit(run_compare(request, template, as_json=json))


@app.command()
def preview(
    source: Annotated[str, typer.Argument(metavar="CLIP|FOLDER|CONFIG", help="As for run.")],
    subject: Subject = "",
    *,
    base: Base = "",
    lora: Lora = [],  # noqa: B006 - typer's way
    mask: Mask = False,
    settings: Set = [],  # noqa: B006
    out: Annotated[Path, typer.Option(help="The contact sheet.")] = Path("preview.png"),
    json: Json = False,
) -> None:
    """Show exactly the frames, masks, captions and prompts that would be trained on."""
    from flows.cli.preview import preview_config
    from flows.cli.run import asked_config

    options = {
        "concept.subject": subject,
        "base.source": base,
        "base.loras": lora or "",
        "mask.segmenter": "auto" if mask else "",
    }
    preview_config(asked_config(source, options, settings), out, as_json=json)


@app.command()
def doctor(
    config: Annotated[str, typer.Argument(metavar="[CONFIG]", help="What this config will use.")] = "",
    json: Json = False,
) -> None:
    """Tell what is installed, what this machine has, and what a config will use."""
    from flows.cli.doctor import examine

    examine(config, as_json=json)


@app.command()
def generate(
    name: Concept,
    prompt: Annotated[
        list[str], typer.Argument(metavar="[PROMPT]...", help="With {subject} in the subject's place.")
    ] = [],  # noqa: B006 - typer's way
    *,
    prompts: Prompts = "",
    seed: Annotated[list[int], typer.Option(help="May be given again.")] = [0],  # noqa: B006
    identity: Strength = None,
    motion: Strength = None,
    negative: Negative = "",
    base: Base = "",
    lora: Lora = [],  # noqa: B006
    frames: Annotated[int, typer.Option(min=0, help="Of each video; 0: as many as the base makes.")] = 0,
    out: Annotated[Path, typer.Option(help="Folder of the videos.")] = Path("generated"),
    json: Json = False,
) -> None:
    """Make videos with a concept: its champion, a version of it, or what a run made."""
    from flows.cli.generate import GenerateRequest, generate_videos

    request = GenerateRequest(prompt, prompts, seed, (identity, motion), negative, base, lora, out, frames)
    generate_videos(name, request, as_json=json)


@app.command()
def export(
    name: Concept,
    form: Annotated[
        str, typer.Option("--format", help="diffusers or comfyui (a file), peft or concept (a folder).")
    ] = "diffusers",
    identity: Strength = None,
    motion: Strength = None,
    out: Annotated[Path | None, typer.Option(help="The file or folder.")] = None,
    json: Json = False,
) -> None:
    """Write a concept's LoRA at the strengths you want."""
    from flows.cli.models import export_concept

    export_concept(name, form, (identity, motion), out, as_json=json)


@app.command()
def watch(
    place: Annotated[
        str, typer.Argument(metavar="[FOLDER|URL]", help="Holds inbox, done and rejected; s3://bucket/prefix too.")
    ] = "",
    config: Annotated[str, typer.Option(help="Base, method and training of every run.")] = "",
) -> None:
    """Turn folders and clips that arrive in an inbox into runs; needs `up`, which does it by itself."""
    from flows.cli.watch import watch_drops

    watch_drops(place, config)


@app.command()
def schema() -> None:
    """Print the JSON schema of a drop's concept.yaml."""
    from flows.cli.output import put
    from pipeline_lib.drops.concept_file import schema as concept_schema

    put(concept_schema())


@app.command()
def up(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Of Prefect's API and UI.")] = 4200,
    mlflow_port: Annotated[int, typer.Option(min=1, max=65535, help="Of MLflow.")] = 5000,
    runs_at_once: Annotated[
        int | None, typer.Option(min=1, help="A limit of the server, 1 at first; on a GPU runs take turns anyway.")
    ] = None,
    *,
    prefect_database: Annotated[
        str, typer.Option(envvar="MANNERISM_PREFECT_DATABASE", help="E.g. postgresql://…; else SQLite.")
    ] = "",
    mlflow_database: Annotated[
        str, typer.Option(envvar="MANNERISM_MLFLOW_DATABASE", help="E.g. postgresql://…; else SQLite.")
    ] = "",
    drops: Annotated[str, typer.Option(help="Folder of the inbox, or s3://bucket/prefix.")] = "",
    drop_config: Annotated[str, typer.Option(help="Base, method and training of runs that come of drops.")] = "",
    notify: Annotated[
        str,
        typer.Option(
            envvar="MANNERISM_NOTIFY_BLOCK", metavar="TYPE/NAME", help="Prefect block that is told of failed runs."
        ),
    ] = "",
) -> None:
    """Run the servers, a worker, the watcher of drops and all deployments until Ctrl-C."""
    from flows.cli.up import UpRequest, bring_up
    from flows.services import Ports

    bring_up(
        UpRequest(
            ports=Ports(prefect=port, mlflow=mlflow_port),
            at_once=runs_at_once,
            prefect_database=prefect_database,
            mlflow_database=mlflow_database,
            drops=drops,
            drop_config=drop_config,
            notify=notify,
        )
    )


@app.command()
def concepts(json: Json = False) -> None:
    """List registered concepts: champion, scores, date."""
    from flows.cli.generate import list_concepts

    list_concepts(as_json=json)


@app.command()
def runs(json: Json = False) -> None:
    """List all runs."""
    from flows.cli.look import list_runs

    list_runs(as_json=json)


@app.command()
def show(name: Run, json: Json = False) -> None:
    """Tell what a run made, and how good it is."""
    from flows.cli.look import show_run

    show_run(name, as_json=json)


@app.command()
def bases(json: Json = False) -> None:
    """List bases, families, licences and methods."""
    from flows.cli.look import list_bases

    list_bases(as_json=json)


@app.command()
def loras(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="LoRAs of any common trainer.")],
    base: Annotated[str, typer.Option(help="Whether they fit it: 'pocket', or a diffusers folder.")] = "",
    json: Json = False,
) -> None:
    """Tell what LoRA files are: their names, family, layers, ranks and scales."""
    from flows.cli.loras import tell_loras

    tell_loras(files, base, as_json=json)


@app.command()
def prune(
    older_than_days: Annotated[float, typer.Option(min=0, help="Only what was not used for so long.")] = 14,
    drops: Annotated[bool, typer.Option("--drops", help="Clips in `done` and `rejected` too.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell.")] = False,
    json: Json = False,
) -> None:
    """Delete cached latents, prior sets, checkpoints and old logs; runs, concepts and samples stay."""
    from flows.cli.look import prune_state

    prune_state(older_than_days, drops=drops, dry_run=dry_run, as_json=json)


def main() -> None:
    """The console script: runs a command and ends with its exit code."""
    for number in (signal.SIGINT, signal.SIGTERM):  # both: checkpoint, clean up, leave
        signal.signal(number, on_signal)
    sys.exit(ended(app, sys.argv[1:]))


if __name__ == "__main__":
    main()
