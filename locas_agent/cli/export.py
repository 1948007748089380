"""The commands that look at a memory or carry it elsewhere: `locas-agent export`, `import`, `explain`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from locas_agent.cli.model import BackboneOption, DeviceOption, DtypeOption, open_agent
from locas_agent.cli.options import (
    DEFAULT_STORE,
    FilesOption,
    JsonOption,
    KeyFileOption,
    StoreOption,
    TenantOption,
    UserOption,
)
from locas_agent.cli.output import deliver, revision_facts, revision_table, table
from locas_agent.config import StoreSettings

FormName = Literal["dense", "lora", "memory"]


def export(
    path: Annotated[Path, typer.Argument(help="Folder to be made; for the form 'memory' a file.")],
    user: UserOption,
    form: Annotated[
        FormName,
        typer.Option(
            "--form",
            help="'dense' is a standard checkpoint, 'lora' an adapter on the padded backbone, 'memory' a portable file "
            "for `import`.",
        ),
    ] = "dense",
    multiple: Annotated[
        int, typer.Option("--multiple", min=1, help="Round the FFN's width up to a multiple of this, for example 128.")
    ] = 1,
    base: Annotated[
        Path | None,
        typer.Option(
            "--base", help="Of 'lora': where the padded backbone lies or is to be put, for many users to share."
        ),
    ] = None,
    tenant: TenantOption = "default",
    backbone: BackboneOption = "tiny",
    store: StoreOption = DEFAULT_STORE,
    device: DeviceOption = None,
    dtype: DtypeOption = "auto",
    key_file: KeyFileOption = None,
    files: FilesOption = None,
    json: JsonOption = None,
) -> None:
    """Write a user's memory for other programs.

    What is written is personal data; `forget` and `erase` do not reach it.
    """
    with open_agent(backbone, store, device, dtype, kept=StoreSettings(files=files), key_file=key_file) as memory:
        handle = memory.for_user(user, tenant=tenant)
        place = handle.export(path, form=form, multiple=multiple, base=base)
    facts = {"path": str(place), "form": form, "personal_data": True}
    deliver(json, facts, f"{place}\nThis is personal data of one user: keep it as you would keep the conversations.")


def import_(
    path: Annotated[Path, typer.Argument(help="What `export` wrote, in any form.")],
    user: UserOption,
    tenant: TenantOption = "default",
    backbone: BackboneOption = "tiny",
    store: StoreOption = DEFAULT_STORE,
    device: DeviceOption = None,
    dtype: DtypeOption = "auto",
    key_file: KeyFileOption = None,
    files: FilesOption = None,
    json: JsonOption = None,
) -> None:
    """Begin a user with an exported memory of the same backbone; the user's journal must be empty."""
    with open_agent(backbone, store, device, dtype, kept=StoreSettings(files=files), key_file=key_file) as memory:
        revision = memory.for_user(user, tenant=tenant).import_memory(path)
    deliver(json, revision_facts(revision), revision_table([revision]))


def explain(
    text: Annotated[str, typer.Argument(help="What is looked at.")],
    user: UserOption,
    question: Annotated[str | None, typer.Option("--question", help="Look at the text as the answer to this.")] = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", help="Draw it too, into a file that ends in .png, .svg or .pdf.")
    ] = None,
    tenant: TenantOption = "default",
    backbone: BackboneOption = "tiny",
    store: StoreOption = DEFAULT_STORE,
    device: DeviceOption = None,
    dtype: DtypeOption = "auto",
    key_file: KeyFileOption = None,
    files: FilesOption = None,
    json: JsonOption = None,
) -> None:
    """Print what a user's memory does to a text: each token's log-probability with and without it."""
    with open_agent(backbone, store, device, dtype, kept=StoreSettings(files=files), key_file=key_file) as memory:
        found = memory.for_user(user, tenant=tenant).explain(text, question=question)
    if plot is not None:
        from locas_agent.plots import plot_explanation

        plot_explanation(found, plot)
    rows = [
        [token.text, token.logprob, token.logprob_without, token.logprob - token.logprob_without]
        for token in found.tokens
    ]
    rows.append(["(all)", found.logprob, found.logprob_without, found.logprob - found.logprob_without])
    columns = [
        "layer",
        "tau",
        "gate norm",
        "up norm",
        "down norm",
        "gate clipped",
        "up clipped",
        "down clipped",
        "largest push",
    ]
    layers = [[getattr(each, name) for name in each.__slots__] for each in found.layers]
    shown = [
        table(["token", "with memory", "without", "gain (nats)"], rows),
        *([table(columns, layers)] if layers else []),
    ]
    deliver(json, found, *shown)
