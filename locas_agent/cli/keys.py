"""`locas-agent keys`.

Making the key file of an encrypted store, rotating its keys, encrypting a store that is in the clear; and the API keys
of `locas-agent serve`.
"""

from __future__ import annotations

from contextlib import closing
from typing import Annotated, Any

import typer

from locas_agent.cli.options import DEFAULT_STORE, CommandGroup, FilesOption, JsonOption, StoreOption, TenantOption
from locas_agent.cli.output import deliver, table
from locas_storage import ApiKey, FileKeyProvider, add_key, new_key_file, open_store, retire_keys

RequiredKeyFileOption = Annotated[
    str, typer.Option("--key-file", metavar="PATH", envvar="LOCAS_KEY_FILE", help="The key file.")
]

keys = typer.Typer(cls=CommandGroup, no_args_is_help=True, help="Keys of an encrypted store, and of a server.")
api = typer.Typer(cls=CommandGroup, no_args_is_help=True, help="Keys with which clients call `locas-agent serve`.")
keys.add_typer(api, name="api")


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

    Make a backup, and stop whoever works on it without keys.
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


@api.command("new")
def new_api_key(
    tenant: TenantOption = "default",
    user: Annotated[
        str | None, typer.Option("--user", help="The one user it stands for; any user of the tenant unless given.")
    ] = None,
    label: Annotated[str, typer.Option("--label", help="What you call it.")] = "",
    store: StoreOption = DEFAULT_STORE,
    json: JsonOption = None,
) -> None:
    """Make a key and print its secret, once: the store keeps a digest."""
    with closing(open_store(store)) as opened:
        made = opened.api_keys.new(tenant, user, label=label)
    deliver(json, _api_key_facts(made.key) | {"secret": made.secret}, made.secret)


@api.command("list")
def list_api_keys(
    tenant: Annotated[str | None, typer.Option("--tenant", help="Only this tenant's keys.")] = None,
    store: StoreOption = DEFAULT_STORE,
    json: JsonOption = None,
) -> None:
    """Print the keys there are, never a secret."""
    with closing(open_store(store)) as opened:
        facts = [_api_key_facts(key) for key in opened.api_keys.keys(tenant)]
    columns = ["id", "tenant", "user", "label", "created_at", "revoked_at"]
    deliver(json, facts, table(columns, [[fact[column] for column in columns] for fact in facts]))


@api.command("revoke")
def revoke_api_key(
    key_id: Annotated[str, typer.Argument(help="Its id, as `keys api list` shows it.")],
    store: StoreOption = DEFAULT_STORE,
    json: JsonOption = None,
) -> None:
    """Refuse a key from now on, in running servers too."""
    with closing(open_store(store)) as opened:
        revoked = opened.api_keys.revoke(key_id)
    deliver(json, _api_key_facts(revoked), f"{revoked.key_id} is refused from now on")


def _api_key_facts(key: ApiKey) -> dict[str, Any]:
    return {
        "id": key.key_id,
        "tenant": key.tenant,
        "user": key.user,
        "label": key.label,
        "created_at": key.created_at,
        "revoked_at": key.revoked_at,
    }
