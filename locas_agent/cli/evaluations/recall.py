"""The command `eval recall`: its options, and the tables of its report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from locas_agent.cli.model import (
    BackboneOption,
    ConfigOption,
    DeviceOption,
    DtypeOption,
    SeedOption,
    open_agent,
    read_config,
)
from locas_agent.cli.options import JsonOption, PlotOption, StoreOption
from locas_agent.cli.output import deliver, progress_bar
from locas_agent.config import Objective
from locas_agent.evaluation.recall.people import LeftOut


def recall(
    people: Annotated[
        list[Path] | None,
        typer.Option(
            "--people",
            metavar="FILE",
            exists=True,
            dir_okay=False,
            help="Ask people of the talk schema, see docs/people.md, in place of made-up ones; may be repeated.",
        ),
    ] = None,
    users: Annotated[
        int | None,
        typer.Option(
            "--users", min=1, help="People; 64 made-up ones or all of the files unless given, from each file in turn."
        ),
    ] = None,
    sessions: Annotated[int, typer.Option("--sessions", min=1, help="Dated sessions of each made-up person.")] = 4,
    facts: Annotated[int, typer.Option("--facts", min=1, help="Facts that one tells in each session.")] = 4,
    wordings: Annotated[
        int | None,
        typer.Option(
            "--wordings", min=1, help="Wordings asked of each fact; one of made-up people, all of files unless given."
        ),
    ] = None,
    consolidations: Annotated[
        int | None,
        typer.Option(
            "--consolidations", min=1, help="Learn each person's turns in so many steps; one a session unless given."
        ),
    ] = None,
    assistant_trust: Annotated[
        str,
        typer.Option(
            "--assistant-trust",
            help="Label of all turns of the assistant; `sources` of the settings say what is learnt.",
        ),
    ] = "user",
    users_per_batch: Annotated[
        int, typer.Option("--users-per-batch", min=1, help="People consolidated side by side.")
    ] = 32,
    without: Annotated[
        list[LeftOut] | None, typer.Option("--without", help="An arm that is not asked; may be repeated.")
    ] = None,
    lora_users: Annotated[
        int, typer.Option("--lora-users", min=0, help="People the LoRA peer is trained for; 0 leaves it out.")
    ] = 16,
    prefix_users: Annotated[
        int, typer.Option("--prefix-users", min=0, help="People the prefix peer is trained for; 0 leaves it out.")
    ] = 0,
    objective: Annotated[
        Objective | None,
        typer.Option("--objective", help="What memories learn from, see docs/method.md; the settings' unless given."),
    ] = None,
    plot: PlotOption = None,
    backbone: BackboneOption = "tiny",
    store: StoreOption = "sqlite://",
    device: DeviceOption = None,
    dtype: DtypeOption = "auto",
    config: ConfigOption = None,
    seed: SeedOption = 0,
    json: JsonOption = None,
) -> None:
    """People tell facts over sessions; questions in other wordings are answered from the weights.

    The people are made up from a seed, or those of files. Default store: memory.
    """
    from locas_agent.evaluation.recall.plot import plot_recall
    from locas_agent.evaluation.recall.report import groups_table, recall_table
    from locas_agent.evaluation.recall.run import run_recall
    from locas_agent.evaluation.recall.setup import RecallOptions, evaluation_config

    options = RecallOptions(
        files=tuple(people or ()),
        users=users,
        sessions=sessions,
        facts=facts,
        seed=seed,
        wordings=wordings,
        consolidations=consolidations,
        assistant_trust=assistant_trust,
        without=tuple(without or ()),
        lora_users=lora_users,
        prefix_users=prefix_users,
        users_per_batch=users_per_batch,
    )
    source = options.source()
    settings = evaluation_config(read_config(config))
    if objective is not None:
        settings = settings.model_copy(
            update={"training": settings.training.model_copy(update={"objective": objective})}
        )
    with open_agent(backbone, store, device, dtype, settings) as memory, progress_bar() as progress:
        report = run_recall(options, agent=memory, source=source, progress=progress)
    if plot is not None:
        plot_recall(report, plot)
    deliver(json, report, recall_table(report), groups_table(report))
