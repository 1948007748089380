"""`locas-agent keys`.

Making the key file of an encrypted store, rotating its keys, encrypting a store that is in the clear.
"""

from __future__ import annotations

from contextlib import closing
from typing import Annotated

import typer

from locas_agent.cli.options import DEFAULT_STORE, CommandGroup, FilesOption, StoreOption
from locas_storage import FileKeyProvider, add_key, new_key_file, open_store, retire_keys

RequiredKeyFileOption = Annotated[
    str, typer.Option("--key-file", metavar="PATH", envvar="LOCAS_KEY_FILE", help="The key file.")
]

keys = typer.Typer(cls=CommandGroup, no_args_is_help=True, help="Keys of an encrypted store.")


@keys.command()
def new(path: Annotated[str, typer.Argument(help="A file that does not exist yet.")]) -> None:
    """Make a key file with one fresh key, readable by you alone.

    Without it nobody can read what it encrypts: keep a copy elsewhere.
    """
    typer.echo(
        f"{path} holds {new_key_file(path)}; a store is encrypted from its first turn on, with --key-file {path}"
    )


@keys.command()
def rotate(
    key_file: RequiredKeyFileOption,
    store: StoreOption = DEFAULT_STORE,
    retire: Annotated[
        bool,
        typer.Option(
            "--retire",
            help="Remove the older keys at the end: backups and other stores under them become unreadable for ever.",
        ),
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


@keys.command()
def encrypt(key_file: RequiredKeyFileOption, store: StoreOption = DEFAULT_STORE, files: FilesOption = None) -> None:
    """Encrypt every user of a store that is in the clear, and leave no clear byte in it.

    Make a backup, and stop every program that works on it without keys.
    """
    with closing(open_store(store, files=files, key_provider=FileKeyProvider(key_file))) as opened:
        done = opened.encrypt()
    typer.echo(
        f"{done.users} users are encrypted now; from here on the store is opened with --key-file {key_file}. Backups "
        "made before are in the clear"
    )
    if not done.is_overwritten:
        typer.echo(
            "clear bytes may still lie in the database's files: PostgreSQL's log keeps them for a while, SQLite while "
            "others read; run it again"
        )
