"""`locas-agent verify`: what of a database does not hold."""

from __future__ import annotations

from contextlib import closing
from typing import Annotated

import typer

from locas_agent.cli.options import DEFAULT_STORE, FilesOption, JsonOption, KeyFileOption, StoreOption, key_provider
from locas_agent.cli.output import deliver, table
from locas_storage import open_store


def verify(
    user: Annotated[str | None, typer.Option("--user", help="Only this user; give the tenant too.")] = None,
    tenant: Annotated[str | None, typer.Option("--tenant", help="Only this tenant's users.")] = None,
    store: StoreOption = DEFAULT_STORE,
    files: FilesOption = None,
    key_file: KeyFileOption = None,
    json: JsonOption = None,
) -> None:
    """Check every digest, chain and invariant of a database; name what is wrong and exit with 1. Changes nothing."""
    with closing(open_store(store, files=files, key_provider=key_provider(key_file))) as opened:
        found = opened.verify(tenant=tenant, user=user)
    faults = [
        {
            "tenant": fault.key and fault.key.tenant,
            "user": fault.key and fault.key.user,
            "what": fault.what,
            "detail": fault.detail,
        }
        for fault in found.faults
    ]
    facts = {
        "users": found.users,
        "turns": found.turns,
        "revisions": found.revisions,
        "is_sound": found.is_sound,
        "faults": faults,
    }
    checked = (
        f"checked: {found.users} users, {found.turns} turns, {found.revisions} revisions; {len(faults) or 'no'} faults"
    )
    shown = [table(["tenant", "user", "what", "detail"], [list(fault.values()) for fault in faults])] if faults else []
    deliver(json, facts, *shown, checked)
    if faults:
        raise typer.Exit(1)
