"""The command `locas-agent`: options, exit codes, and one public verb behind each command.

Commands that need no model open the store alone and import no torch.

Exit codes: 0 done, 1 failed with a message on standard error, 2 wrong usage.
"""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Annotated, Any

import typer

from locas_agent.cli.bench import bench
from locas_agent.cli.calibrate import calibrate
from locas_agent.cli.db import databases
from locas_agent.cli.evaluations.locomo import locomo
from locas_agent.cli.evaluations.mmlu import mmlu
from locas_agent.cli.evaluations.passages import passages
from locas_agent.cli.evaluations.pg19 import pg19
from locas_agent.cli.evaluations.recall import recall
from locas_agent.cli.export import explain, export, import_
from locas_agent.cli.forget import erase, forget, jobs
from locas_agent.cli.journal import revisions, rollback, search, turns, users
from locas_agent.cli.keys import keys
from locas_agent.cli.mcp import mcp
from locas_agent.cli.model import (
    BackboneOption,
    ConfigOption,
    DeviceOption,
    DtypeOption,
    SeedOption,
    open_agent,
    read_config,
)
from locas_agent.cli.on_ray import (
    RayActorsOption,
    RayChoice,
    RayCpusOption,
    RayGpusOption,
    RayOption,
    shared_store,
    work_with_ray,
)
from locas_agent.cli.options import (
    DEFAULT_KEPT,
    DEFAULT_STORE,
    CommandGroup,
    FilesOption,
    InlineBytesOption,
    JsonOption,
    KeepPayloadsOption,
    KeyFileOption,
    StoreOption,
    TenantOption,
    UserOption,
)
from locas_agent.cli.output import (
    deliver,
    keep_libraries_quiet,
    progress_bar,
    table,
)
from locas_agent.cli.person import archive, correct, import_chats
from locas_agent.cli.serve import serve
from locas_agent.cli.signals import stop_on_signals
from locas_agent.cli.traces import TracesOption, sending_traces
from locas_agent.cli.upgrade import upgrade
from locas_agent.cli.verify import verify
from locas_agent.config import StoreSettings
from locas_agent.types import CODE_VERSION

if TYPE_CHECKING:
    from locas_agent.results import Consolidation


SQLITE_FILE = "sqlite:///"


def _new_file(url: str | None) -> str | None:
    """Refuse a store that is no new SQLite file: the demo proves something only about what it has told itself."""
    if url is not None and (not url.startswith(SQLITE_FILE) or Path(url.removeprefix(SQLITE_FILE)).exists()):
        raise typer.BadParameter(f"the demo wants a file that does not exist yet, as {SQLITE_FILE}PATH")
    return url


def _print_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"locas-agent {CODE_VERSION}")
        raise typer.Exit


app = typer.Typer(
    name="locas-agent", cls=CommandGroup, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False
)
evaluations = typer.Typer(cls=CommandGroup, no_args_is_help=True, help="Evaluations.")
app.add_typer(evaluations, name="eval")
app.add_typer(databases, name="db")
app.add_typer(keys, name="keys")


@app.callback()
def about(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """Long-term memory for language-model agents, kept in the weights."""


@app.command()
def demo(
    users: Annotated[
        int | None, typer.Option("--users", min=2, help="People who tell facts; few unless given.")
    ] = None,
    backbone: BackboneOption = "tiny",
    store: Annotated[
        str | None,
        typer.Option(
            "--store", callback=_new_file, help="New SQLite file, as sqlite:///PATH; a temporary one unless given."
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Of everything drawn at random.")] = None,
    json: JsonOption = None,
) -> None:
    """Show the main job.

    Facts told over sessions, consolidated, the process restarted, questions answered without the sessions. On the
    bundled backbone by made-up people, on any other by two hand-written ones.
    """
    from locas_agent.evaluation.recall.demo import demo_options, run_demo
    from locas_agent.evaluation.recall.report import recall_table

    path = Path(store.removeprefix(SQLITE_FILE) if store else mkdtemp(prefix="locas-demo-") + "/locas.db").absolute()
    chosen = {name: value for name, value in (("users", users), ("seed", seed)) if value is not None}
    with progress_bar() as progress:
        report = run_demo(
            path, options=demo_options(backbone).model_copy(update=chosen), backbone=backbone, progress=progress
        )
    deliver(
        json,
        report,
        recall_table(report),
        f"The database is {path}\nLook into it with: locas-agent users --store {SQLITE_FILE}{path}",
    )


@app.command()
def chat(
    user: UserOption,
    tenant: TenantOption = "default",
    backbone: BackboneOption = "tiny",
    store: StoreOption = DEFAULT_STORE,
    device: DeviceOption = None,
    dtype: DtypeOption = "auto",
    config: ConfigOption = None,
    seed: SeedOption = 0,
    max_new_tokens: Annotated[
        int | None, typer.Option("--max-new-tokens", min=1, help="Longest answer, in tokens.")
    ] = None,
    temperature: Annotated[float, typer.Option("--temperature", min=0.0, help="Of sampling; 0 is greedy.")] = 0.0,
    learn: Annotated[
        bool, typer.Option("--learn/--no-learn", help="Whether what is said may be learnt; it is journalled anyway.")
    ] = True,
    key_file: KeyFileOption = None,
    files: FilesOption = None,
    keep_payloads: KeepPayloadsOption = DEFAULT_KEPT.keep_payloads,
    inline_bytes: InlineBytesOption = DEFAULT_KEPT.inline_bytes,
) -> None:
    """Talk; /why, /consolidate, /revisions and /help inside."""
    from locas_agent.cli.chat import Chat, typed_lines

    kept = StoreSettings(keep_payloads=keep_payloads, files=files, inline_bytes=inline_bytes)
    with open_agent(backbone, store, device, dtype, read_config(config), kept, key_file=key_file) as memory:
        handle = memory.for_user(user, tenant=tenant)
        Chat(handle, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed, learn=learn).run(typed_lines())


app.command()(users)
app.command()(turns)
app.command()(search)
app.command()(revisions)
app.command()(rollback)


@app.command()
def consolidate(
    user: Annotated[
        str | None, typer.Option("--user", help="Whose memory; everyone of the tenant unless given.")
    ] = None,
    tenant: TenantOption = "default",
    flush: Annotated[bool, typer.Option("--flush", help="Learn the turns that are still in the window too.")] = False,
    backbone: BackboneOption = "tiny",
    store: StoreOption = DEFAULT_STORE,
    device: DeviceOption = None,
    dtype: DtypeOption = "auto",
    config: ConfigOption = None,
    seed: SeedOption = 0,
    key_file: KeyFileOption = None,
    files: FilesOption = None,
    keep_payloads: KeepPayloadsOption = DEFAULT_KEPT.keep_payloads,
    inline_bytes: InlineBytesOption = DEFAULT_KEPT.inline_bytes,
    json: JsonOption = None,
) -> None:
    """Learn what has left the window; each user's new memory is admitted or refused by itself.

    A refusal is a result, not a failure.
    """
    kept = StoreSettings(keep_payloads=keep_payloads, files=files, inline_bytes=inline_bytes)
    with open_agent(backbone, store, device, dtype, read_config(config), kept, key_file=key_file) as memory:
        names = [user] if user is not None else [key.user for key in memory.users(tenant=tenant)]
        with progress_bar() as progress:
            handles = [memory.for_user(name, tenant=tenant) for name in names]
            results = memory.consolidate_many(handles, flush=flush, progress=progress, seed=seed)
    facts = [_consolidation_facts(name, result) for name, result in zip(names, results, strict=True)]
    columns = ["user", "status", "reason", "turns", "revision"]
    deliver(
        json, facts, table([*columns, "detail"], [[fact[column] for column in (*columns, "detail")] for fact in facts])
    )


@app.command()
def work(
    once: Annotated[bool, typer.Option("--once", help="End as soon as nothing is due.")] = False,
    jobs_at_once: Annotated[int, typer.Option("--jobs-at-once", min=1, help="Users learnt side by side.")] = 8,
    lease_seconds: Annotated[
        float, typer.Option("--lease-seconds", min=1.0, help="After this silence another worker takes over.")
    ] = 300.0,
    poll_seconds: Annotated[
        float, typer.Option("--poll-seconds", min=0.1, help="Between two looks at an empty queue.")
    ] = 2.0,
    ray: RayOption = False,
    ray_actors: RayActorsOption = None,
    ray_cpus: RayCpusOption = 1.0,
    ray_gpus: RayGpusOption = None,
    traces: TracesOption = False,
    backbone: BackboneOption = "tiny",
    store: StoreOption = DEFAULT_STORE,
    device: DeviceOption = None,
    dtype: DtypeOption = "auto",
    config: ConfigOption = None,
    key_file: KeyFileOption = None,
    files: FilesOption = None,
    keep_payloads: KeepPayloadsOption = DEFAULT_KEPT.keep_payloads,
    inline_bytes: InlineBytesOption = DEFAULT_KEPT.inline_bytes,
    json: JsonOption = None,
) -> None:
    """Drain the queue of consolidations and rebuilds until stopped; any number of workers may run.

    SIGTERM gives back what is in progress.
    """
    kept = StoreSettings(keep_payloads=keep_payloads, files=files, inline_bytes=inline_bytes)
    place = shared_store(store, traces=traces) if ray else store
    opened = partial(open_agent, backbone, place, device, dtype, read_config(config), kept, key_file=key_file)
    if ray:
        how = RayChoice(ray_actors, ray_cpus, ray_gpus)
        done = work_with_ray(opened, how, once, jobs_at_once, lease_seconds, poll_seconds)
    else:
        with sending_traces(traces), stop_on_signals() as stop, opened() as memory, progress_bar() as progress:
            done = memory.work(
                stop=stop,
                once=once,
                jobs_at_once=jobs_at_once,
                lease_seconds=lease_seconds,
                poll_seconds=poll_seconds,
                progress=progress,
            )
    counts = asdict(done)
    deliver(json, counts, table(list(counts), [list(counts.values())]))


app.command()(forget)
app.command()(erase)
app.command()(jobs)
app.command()(correct)
app.command("import-chats")(import_chats)
app.command()(archive)
app.command()(verify)
app.command()(export)
app.command("import")(import_)
app.command()(explain)
app.command()(bench)
app.command()(calibrate)
app.command()(upgrade)
app.command()(serve)
app.command()(mcp)


evaluations.command("recall")(recall)
evaluations.command("locomo")(locomo)
evaluations.command("pg19")(pg19)
evaluations.command("mmlu")(mmlu)
evaluations.command("passages")(passages)


def main() -> None:
    """Run the command in a process that is its own."""
    keep_libraries_quiet()
    app()


def _consolidation_facts(user: str, result: Consolidation) -> dict[str, Any]:
    return {
        "user": user,
        "status": result.status,
        "reason": result.reason,
        "detail": result.detail,
        "turns": result.turns,
        "revision": result.revision.number if result.revision else None,
        "figures": result.metrics.as_json(),
    }
