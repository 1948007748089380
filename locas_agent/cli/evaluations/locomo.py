"""The command `eval locomo`: its options, and the tables of its report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from locas_agent.cli.model import BackboneOption, DeviceOption, DtypeOption, SeedOption, open_agent
from locas_agent.cli.options import AnswersOption, JsonOption, PlotOption, StoreOption
from locas_agent.cli.output import deliver, progress_bar

Conversations = Annotated[
    list[str] | None,
    typer.Option("--conversation", metavar="SAMPLE_ID", help="Only this one; may be repeated. All unless given."),
]
Arms = Annotated[list[str] | None, typer.Option("--arm", help="Only this arm; may be repeated. All unless given.")]
Short = Annotated[
    bool | None,
    typer.Option(
        "--short/--bare", help="Ask for a few words, or put bare questions; bare for the bundled backbone unless given."
    ),
]

Light = Annotated[
    bool | None,
    typer.Option(
        "--light/--full",
        help="Short study and training, or the default ones; light for the bundled backbone on a file unless given.",
    ),
]


def locomo(
    path: Annotated[
        Path | None,
        typer.Argument(
            metavar="[PATH]", exists=True, help="locomo10.json, its flat form, or a folder of conversations."
        ),
    ] = None,
    people: Annotated[
        int | None,
        typer.Option(
            "--people",
            min=1,
            help="Make up so many conversations in the same schema, which the bundled backbone can speak.",
        ),
    ] = None,
    conversation: Conversations = None,
    first: Annotated[int | None, typer.Option("--first", min=1, help="Only the first so many conversations.")] = None,
    sessions: Annotated[int | None, typer.Option("--sessions", min=1, help="Only the first sessions of each.")] = None,
    questions: Annotated[
        int | None, typer.Option("--questions", min=1, help="At most so many questions of each, from all categories.")
    ] = None,
    arm: Arms = None,
    short: Short = None,
    light: Light = None,
    answers: AnswersOption = None,
    disputed: Annotated[
        Path | None,
        typer.Option(
            "--disputed",
            metavar="FILE",
            exists=True,
            dir_okay=False,
            help="List of wrong gold answers; figures without them too.",
        ),
    ] = None,
    plot: PlotOption = None,
    backbone: BackboneOption = "tiny",
    store: StoreOption = "sqlite://",
    device: DeviceOption = None,
    dtype: DtypeOption = "auto",
    seed: SeedOption = 0,
    json: JsonOption = None,
) -> None:
    """Long conversations of LoCoMo are learnt session by session, then questioned.

    Default store: memory. The data are CC BY-NC and not shipped.
    """
    if (path is None) == (people is None):
        raise typer.BadParameter("name LoCoMo's file, or make conversations up with --people")
    from locas_agent.evaluation.locomo.data import dialogues_of, read_dialogues
    from locas_agent.evaluation.locomo.people import MadeUpOptions, made_up
    from locas_agent.evaluation.locomo.plot import plot_locomo
    from locas_agent.evaluation.locomo.report import adversarial_table, legend, locomo_table
    from locas_agent.evaluation.locomo.run import (
        LocomoOptions,
        data_digest,
        locomo_config,
        near_floor,
        read_disputed,
        run_locomo,
    )

    if path is not None:
        dialogues, digest = read_dialogues(path)
    else:
        data = made_up(MadeUpOptions(people=people or 1, seed=seed))
        dialogues, digest = dialogues_of(data), data_digest(data)
    chosen = {
        "conversations": conversation,
        "first": first,
        "sessions": sessions,
        "questions": questions,
        "arms": arm,
        "short": short,
    }
    options = LocomoOptions(seed=seed, **{name: value for name, value in chosen.items() if value is not None})
    wrong = read_disputed(disputed) if disputed is not None else frozenset()
    config = locomo_config(light=light if light is not None else backbone == "tiny" and path is not None)
    with open_agent(backbone, store, device, dtype, config) as memory, progress_bar() as progress:
        report = run_locomo(
            memory, dialogues, options, digest=digest, answers=answers, disputed=wrong, progress=progress
        )
        report["note"] = near_floor(memory) if path is not None else None
    shown = [locomo_table(report), legend(report), adversarial_table(report), report["note"]]
    if disputed is not None and report["without_disputed"] is None:
        shown.append("No question that was asked is on the list of disputed answers.")
    elif report["without_disputed"] is not None:
        shown.append(
            locomo_table(
                report | report["without_disputed"],
                title=f"Without {report['disputed_questions']} disputed gold answers",
            )
        )
    if plot is not None:
        plot_locomo(report, plot)
    deliver(json, report, *(each for each in shown if each is not None))
