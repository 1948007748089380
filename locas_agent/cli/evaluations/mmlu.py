"""The command `eval mmlu`: its options, and the tables of its report."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from locas_agent.cli.model import BackboneOption, DeviceOption, DtypeOption, SeedOption, open_agent
from locas_agent.cli.options import AnswersOption, JsonOption, KeyFileOption, PlotOption, StoreOption, TenantOption
from locas_agent.cli.output import deliver, progress_bar

if TYPE_CHECKING:
    from locas_agent.agent import AgentMemory
    from locas_agent.memory import LocasMemory
    from locas_agent.types import Progress

DEFAULT_PEOPLE = 4


def mmlu(
    path: Annotated[
        Path | None,
        typer.Argument(
            metavar="[PATH]",
            exists=True,
            file_okay=False,
            help="Folder with mmlu_test.jsonl, and mmlu_dev.jsonl for --shots.",
        ),
    ] = None,
    task: Annotated[
        list[Path] | None,
        typer.Option(
            "--task",
            metavar="FILE",
            exists=True,
            dir_okay=False,
            help="Any other task: a YAML file of lm-eval on local data; may be repeated.",
        ),
    ] = None,
    user: Annotated[str | None, typer.Option("--user", help="Take this user's memory from --store.")] = None,
    tenant: TenantOption = "default",
    people: Annotated[
        int | None,
        typer.Option(
            "--people",
            min=2,
            help=f"Teach so many made-up people, as `eval recall` does; {DEFAULT_PEOPLE} unless given.",
        ),
    ] = None,
    talk: Annotated[
        list[Path] | None,
        typer.Option(
            "--talk",
            metavar="FILE",
            exists=True,
            dir_okay=False,
            help="Teach the people of this file what they say, as `eval recall --people FILE` does; may be repeated.",
        ),
    ] = None,
    text: Annotated[
        Path | None,
        typer.Option(
            "--text",
            metavar="FILE",
            exists=True,
            dir_okay=False,
            help="Teach one memory this text, by next-token loss.",
        ),
    ] = None,
    shots: Annotated[int, typer.Option("--shots", min=0, help="Examples before each question of MMLU.")] = 0,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="Ask only so many questions, drawn from all.")
    ] = None,
    answers: AnswersOption = None,
    plot: PlotOption = None,
    backbone: BackboneOption = "tiny",
    store: StoreOption = "sqlite://",
    device: DeviceOption = None,
    dtype: DtypeOption = "auto",
    seed: SeedOption = 0,
    key_file: KeyFileOption = None,
    json: JsonOption = None,
) -> None:
    """What a memory costs elsewhere: questions of MMLU asked with it off and on, and compared one by one.

    Runs without a network.
    """
    if path is None and not task:
        raise typer.BadParameter("name the folder of MMLU, or a task with --task")
    if sum(source is not None for source in (user, people, talk or None, text)) > 1:
        raise typer.BadParameter("--user, --people, --talk and --text are sources of memories: name one")
    _stay_offline()
    from locas_agent.evaluation.mmlu.data import Mmlu
    from locas_agent.evaluation.mmlu.memories import text_config
    from locas_agent.evaluation.mmlu.plot import plot_forgetting
    from locas_agent.evaluation.mmlu.report import forgetting_table
    from locas_agent.evaluation.mmlu.run import load_tasks, measure_forgetting
    from locas_agent.evaluation.recall.setup import evaluation_config

    data = Mmlu(path) if path is not None else None
    tasks = load_tasks([*(data.tasks(shots=shots) if data is not None else ()), *(task or ())])
    config = text_config() if text is not None else evaluation_config(None)
    with open_agent(backbone, store, device, dtype, config, key_file=key_file) as memory, progress_bar() as progress:
        taught = _taught(
            memory, user=user, tenant=tenant, people=people, talk=talk, text=text, seed=seed, progress=progress
        )
        report = measure_forgetting(memory, tasks, taught, limit=limit, seed=seed, answers=answers, progress=progress)
    about: dict[str, Any] = {
        "mmlu_sha256": data.digest if data is not None else None,
        "shots": shots if data is not None else None,
    }
    if plot is not None:
        plot_forgetting(report, plot)
    deliver(json, report | about, forgetting_table(report))


def _taught(
    memory: AgentMemory,
    *,
    user: str | None,
    tenant: str,
    people: int | None,
    talk: list[Path] | None,
    text: Path | None,
    seed: int,
    progress: Progress | None,
) -> dict[str, LocasMemory]:
    """Take the memories from where the options say."""
    from locas_agent.evaluation.mmlu.memories import of_people, of_text, of_user
    from locas_agent.evaluation.recall.people import LeftOut
    from locas_agent.evaluation.recall.setup import RecallOptions

    if user is not None:
        return of_user(memory, memory.for_user(user, tenant=tenant))
    if text is not None:
        return of_text(memory, text, progress=progress)
    users = None if talk else people or DEFAULT_PEOPLE
    options = RecallOptions(files=tuple(talk or ()), users=users, seed=seed, without=(LeftOut.WRONG_USER,))
    return of_people(memory, options, progress=progress)


def _stay_offline() -> None:
    """Keep the harness and its libraries off the network, and their bars off a command that has its own.

    Both are read when they are imported.
    """
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TQDM_DISABLE": "1"}
