"""The commands that look into a store: users, turns, search, revisions, and `rollback`. None needs a model."""

from __future__ import annotations

from contextlib import closing
from typing import Annotated

import typer

from locas_agent.cli.options import (
    DEFAULT_STORE,
    JsonOption,
    KeyFileOption,
    StoreOption,
    TenantOption,
    UserOption,
    key_provider,
)
from locas_agent.cli.output import deliver, revision_facts, revision_table, table, turn_facts
from locas_storage import UserKey, open_store


def users(
    tenant: Annotated[str | None, typer.Option("--tenant", help="Only this tenant's users.")] = None,
    store: StoreOption = DEFAULT_STORE,
    json: JsonOption = None,
) -> None:
    """List everyone who has ever said something."""
    rows = []
    with closing(open_store(store)) as opened:
        for key in opened.users(tenant):
            state = opened.state(key)
            if state is not None:
                rows.append(
                    {
                        "tenant": key.tenant,
                        "user": key.user,
                        "turns": state.turns,
                        "learnt": state.consolidated_seq,
                        "revision": state.head,
                    }
                )
    deliver(
        json, rows, table(["tenant", "user", "turns", "learnt up to", "revision"], [list(row.values()) for row in rows])
    )


def turns(
    user: UserOption,
    tenant: TenantOption = "default",
    newest: Annotated[int | None, typer.Option("--newest", min=0, help="Only the last so many.")] = None,
    store: StoreOption = DEFAULT_STORE,
    key_file: KeyFileOption = None,
    json: JsonOption = None,
) -> None:
    """Print a user's journal."""
    with closing(open_store(store, key_provider=key_provider(key_file))) as opened:
        journal = opened.turns(UserKey(tenant, user), newest=newest)
    rows = [[turn.seq, turn.at, turn.role, turn.name, turn.content] for turn in journal]
    deliver(json, [turn_facts(turn) for turn in journal], table(["turn", "time", "role", "name", "text"], rows))


def search(
    text: Annotated[str, typer.Argument(help="Words to look for; there is no query syntax.")],
    user: UserOption,
    tenant: TenantOption = "default",
    limit: Annotated[int, typer.Option("--limit", min=1, help="Turns to print at most.")] = 10,
    store: StoreOption = DEFAULT_STORE,
    key_file: KeyFileOption = None,
    json: JsonOption = None,
) -> None:
    """Print the turns of a user's journal that share a word with a text, best first."""
    with closing(open_store(store, key_provider=key_provider(key_file))) as opened:
        found = opened.search(UserKey(tenant, user), text, limit=limit)
    rows = [[turn.seq, turn.score, turn.at, turn.role, turn.name, turn.content] for turn in found]
    deliver(json, [turn_facts(turn) for turn in found], table(["turn", "score", "time", "role", "name", "text"], rows))


def revisions(
    user: UserOption, tenant: TenantOption = "default", store: StoreOption = DEFAULT_STORE, json: JsonOption = None
) -> None:
    """Print a user's saved memories; the last one is current."""
    with closing(open_store(store)) as opened:
        found = opened.revisions(UserKey(tenant, user))
    deliver(json, [revision_facts(revision) for revision in found], revision_table(found))


def rollback(
    revision: Annotated[int, typer.Argument(min=0, help="The revision to restore; 0 is the time before the first.")],
    user: UserOption,
    tenant: TenantOption = "default",
    store: StoreOption = DEFAULT_STORE,
    json: JsonOption = None,
) -> None:
    """Make an older revision current, as a new one; turns learnt since wait to be learnt again."""
    with closing(open_store(store)) as opened:
        head = opened.rollback(UserKey(tenant, user), revision)
    deliver(json, revision_facts(head), revision_table([head]))
