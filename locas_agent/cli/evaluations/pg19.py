"""The command `eval pg19`: its options, and the table of its report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from locas_agent.cli.model import BackboneOption, DeviceOption, DtypeOption, SeedOption
from locas_agent.cli.options import JsonOption, PlotOption
from locas_agent.cli.output import deliver, progress_bar, table
from locas_agent.types import LinearLayers, NeuronChoice, ScaleRule

Settings = Literal["same-steps", "paper"]


def pg19(
    books: Annotated[
        list[Path],
        typer.Option(
            "--books", metavar="PATH", exists=True, help="A folder of .txt files, or one book; may be repeated."
        ),
    ],
    arms: Annotated[
        str, typer.Option("--arms", help="Any of none, temp_lora and locas, with commas between them.")
    ] = "none,temp_lora,locas",
    settings: Annotated[
        Settings,
        typer.Option(
            "--settings",
            help="One step per chunk for both, rates chosen on other books; or the rates and steps of the papers.",
        ),
    ] = "same-steps",
    window: Annotated[int, typer.Option("--window", min=1, help="Tokens before a chunk that every arm sees.")] = 1024,
    stride: Annotated[int, typer.Option("--stride", min=1, help="Tokens of a chunk.")] = 1024,
    max_tokens: Annotated[
        int | None, typer.Option("--max-tokens", min=2, help="Only so many tokens from the beginning of each book.")
    ] = None,
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="Steps per chunk, of both arms.")] = None,
    width: Annotated[int | None, typer.Option("--width", min=1, help="Slots per layer of the memory.")] = None,
    layers: Annotated[
        str | None,
        typer.Option(
            "--layers",
            help="Beside which the memory stands: all, auto (the topmost third of a deep backbone), how many of the "
            "topmost, a range of depth as 0.5-0.8, or numbers from 0 with commas.",
        ),
    ] = None,
    init: Annotated[
        NeuronChoice | None,
        typer.Option("--init", help="Of the memory's rows: random is Gaussian, the others clone neurons."),
    ] = None,
    scale: Annotated[
        ScaleRule | None, typer.Option("--scale", help="What the output scale is divided by; width is the paper's.")
    ] = None,
    rate: Annotated[float | None, typer.Option("--rate", help="The memory's learning rate.")] = None,
    lora_rank: Annotated[int | None, typer.Option("--lora-rank", min=1, help="Of the adapter.")] = None,
    lora_beside: Annotated[
        LinearLayers | None,
        typer.Option("--lora-beside", help="Which linear layers have an adapter; a memory stands beside the FFNs."),
    ] = None,
    lora_rate: Annotated[float | None, typer.Option("--lora-rate", help="The adapter's learning rate.")] = None,
    state: Annotated[
        Path | None,
        typer.Option(
            "--state", metavar="FOLDER", file_okay=False, help="Keep there how far the run is; a stopped run goes on."
        ),
    ] = None,
    plot: PlotOption = None,
    backbone: BackboneOption = "tiny",
    device: DeviceOption = None,
    dtype: DtypeOption = "auto",
    seed: SeedOption = 0,
    json: JsonOption = None,
) -> None:
    """Online perplexity over whole books: every chunk is scored, then learnt, by no arm, an adapter, and a memory."""
    from pydantic import ValidationError

    from locas_agent.backbone import Backbone
    from locas_agent.evaluation.pg19.data import read_books
    from locas_agent.evaluation.pg19.options import PAPER_LOCAS, PAPER_LORA, LocasSettings, LoraSettings, Pg19Options
    from locas_agent.evaluation.pg19.plot import plot_pg19
    from locas_agent.evaluation.pg19.report import COLUMNS, pg19_rows
    from locas_agent.evaluation.pg19.run import run_pg19

    standing = tuple(layers.split(",")) if layers and "," in layers else layers
    locas, lora = (PAPER_LOCAS, PAPER_LORA) if settings == "paper" else (LocasSettings(), LoraSettings())
    try:
        options = Pg19Options.model_validate(
            {
                "arms": tuple(arms.split(",")),
                "window_tokens": window,
                "stride_tokens": stride,
                "max_tokens": max_tokens,
                "seed": seed,
                "locas": locas.model_dump()
                | _given(steps=steps, width=width, layers=standing, initialization=init, scale=scale, rate=rate),
                "temp_lora": lora.model_dump()
                | _given(steps=steps, rank=lora_rank, rate=lora_rate, beside=lora_beside),
            }
        )
    except ValidationError as error:
        raise typer.BadParameter(
            "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        ) from error
    with progress_bar() as progress:
        report = run_pg19(
            Backbone.load(backbone, device=device, dtype=dtype),
            read_books(books),
            options,
            state=state,
            progress=progress,
        )
    report["settings"] = settings
    if plot is not None:
        plot_pg19(report, plot)
    deliver(json, report, table(COLUMNS, pg19_rows(report)))


def _given(**options: object) -> dict[str, object]:
    """Return the options that were given."""
    return {name: value for name, value in options.items() if value is not None}
