"""`locas-agent keys`: making the key file of an encrypted store, and rotating its keys.

Knows nothing of ciphers, and prints no key.
"""

from __future__ import annotations

from contextlib import closing
from typing import Annotated

import typer

from locas_agent.cli_options import DEFAULT_STORE, CommandGroup, StoreOption
from locas_storage import FileKeyProvider, add_key, new_key_file, open_store, retire_keys

keys = typer.Typer(cls=CommandGroup, no_args_is_help=True, help="Keys of an encrypted store.")


@keys.command()
def new(path: Annotated[str, typer.Argument(help="A file that does not exist yet.")]) -> None:
    """Make a key file with one fresh key, readable by you alone. Without it nobody can read what it encrypts: keep a copy elsewhere."""
    typer.echo(f"{path} holds {new_key_file(path)}; a store is encrypted from its first turn on, with --key-file {path}")


@keys.command()
def rotate(
    key_file: Annotated[str, typer.Option("--key-file", metavar="PATH", envvar="LOCAS_KEY_FILE", help="The key file.")],
    store: StoreOption = DEFAULT_STORE,
    retire: Annotated[
        bool, typer.Option("--retire", help="Remove the older keys at the end: backups and other stores under them become unreadable for ever.")
    ] = False,
) -> None:
    """Add a fresh key and wrap every user's data key under it. Content is not rewritten."""
    key_id = add_key(key_file)
    with closing(open_store(store, key_provider=FileKeyProvider(key_file))) as opened:
        changed = more = opened.rotate_keys()
        while more:  # until nobody is left who was told the old key while it was still current
            more = opened.rotate_keys()
            changed += more
    typer.echo(f"{key_id} is current; {changed} data keys are wrapped under it")
    if retire:
        typer.echo(f"{retire_keys(key_file)} older keys are removed")
