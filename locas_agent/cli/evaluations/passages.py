"""The command `eval passages`: its options, and the tables of its report."""

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
from locas_agent.cli.options import AnswersOption, JsonOption, PlotOption, StoreOption
from locas_agent.cli.output import deliver, progress_bar
from locas_agent.evaluation.passages.choices import PassagesLeftOut, PassagesOptions, ToldAs


def passages(
    path: Annotated[
        Path, typer.Argument(metavar="FILE", exists=True, dir_okay=False, help="Passages, see docs/passages.md.")
    ],
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="Only so many passages, drawn by the seed; all unless given.")
    ] = None,
    sequence: Annotated[
        int | None,
        typer.Option(
            "--sequence", min=2, help="Learn so many passages one after another in one memory too, and ask after each."
        ),
    ] = None,
    told_as: Annotated[ToldAs, typer.Option("--told-as", help="What one turn of the user holds.")] = ToldAs.SENTENCES,
    short: Annotated[bool, typer.Option("--short/--bare", help="Ask for a few words, or put bare questions.")] = False,
    without: Annotated[
        list[PassagesLeftOut] | None,
        typer.Option("--without", help="An arm that is not learnt or asked; may be repeated."),
    ] = None,
    answers: AnswersOption = None,
    plot: PlotOption = None,
    backbone: BackboneOption = "tiny",
    store: StoreOption = "sqlite://",
    device: DeviceOption = None,
    dtype: DtypeOption = "auto",
    config: ConfigOption = None,
    seed: SeedOption = 0,
    json: JsonOption = None,
) -> None:
    """Passages are learnt, in one memory each and in one for all; questions are put without the passage.

    Default store: memory.
    """
    from locas_agent.evaluation.passages.data import read_passages
    from locas_agent.evaluation.passages.plot import plot_passages
    from locas_agent.evaluation.passages.report import learning_table, passages_table, sequence_table
    from locas_agent.evaluation.passages.run import run_passages
    from locas_agent.evaluation.recall.setup import evaluation_config

    options = PassagesOptions(
        limit=limit, seed=seed, sequence=sequence, told_as=told_as, short=short, without=tuple(without or ())
    )
    file = read_passages(path)
    settings = evaluation_config(read_config(config))
    with open_agent(backbone, store, device, dtype, settings) as memory, progress_bar() as progress:
        report = run_passages(memory, file, options, answers=answers, progress=progress)
    if plot is not None:
        plot_passages(report, plot)
    shown = (passages_table(report), learning_table(report), sequence_table(report))
    deliver(json, report, *(table for table in shown if table is not None))
