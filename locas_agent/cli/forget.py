"""The commands that take away: `locas-agent forget`, `erase`; and `jobs`, which shows what waits for a worker."""

from __future__ import annotations

from contextlib import closing
from typing import Annotated

import typer

from locas_agent.cli.options import DEFAULT_STORE, FilesOption, JsonOption, StoreOption, TenantOption, UserOption
from locas_agent.cli.output import deliver, table
from locas_storage import Receipt, UserKey, open_store

WORK_COMMAND = "locas-agent work --once"


def forget(
    turns: Annotated[list[int], typer.Argument(min=1, help="Numbers of the turns, as `turns` prints them.")],
    user: UserOption,
    tenant: TenantOption = "default",
    store: StoreOption = DEFAULT_STORE,
    files: FilesOption = None,
    json: JsonOption = None,
) -> None:
    """Remove turns and all that was learnt from them, at once; a worker then learns the remaining turns again."""
    with closing(open_store(store, files=files)) as opened:
        receipt = opened.forget(UserKey(tenant, user), turns)
    deliver(json, receipt, describe(receipt, store))


def erase(
    user: UserOption,
    tenant: TenantOption = "default",
    store: StoreOption = DEFAULT_STORE,
    files: FilesOption = None,
    json: JsonOption = None,
) -> None:
    """Remove everything of a user and refuse whatever comes late. There is no way back."""
    with closing(open_store(store, files=files)) as opened:
        receipt = opened.erase(UserKey(tenant, user))
    deliver(json, receipt, describe(receipt, store))


def jobs(
    tenant: Annotated[str | None, typer.Option("--tenant", help="Only this tenant's jobs.")] = None,
    store: StoreOption = DEFAULT_STORE,
    json: JsonOption = None,
) -> None:
    """List consolidations that wait for a worker, are being worked on, or were given up."""
    with closing(open_store(store)) as opened:
        found = opened.queue.jobs(tenant)
    facts = [
        {
            "tenant": job.key.tenant,
            "user": job.key.user,
            "state": job.state,
            "to_seq": job.to_seq,
            "is_rebuild": job.is_rebuild,
            "attempts": job.attempts,
            "reason": job.reason,
        }
        for job in found
    ]
    columns = ["tenant", "user", "state", "up to turn", "rebuild", "attempts", "reason"]
    deliver(json, facts, table(columns, [list(fact.values()) for fact in facts]))


def describe(receipt: Receipt, store: str | None = None) -> str:
    """Say what was removed, and what is left to do."""
    lines = [
        f"removed: {len(receipt.turns)} turns, {receipt.study_items} study items, {len(receipt.revisions)} revisions, "
        f"{receipt.payload_bytes} bytes of memories",
        f"receipt: audit line {receipt.audit_sha256}",
    ]
    if receipt.rebuild_to_seq:
        how = f"; run `{WORK_COMMAND} --store {store}`" if store is not None else ""
        lines.append(f"the turns up to {receipt.rebuild_to_seq} wait to be learnt again{how}")
    if not receipt.is_overwritten:
        lines.append(
            "old bytes may still lie in the database's files: PostgreSQL keeps them until it vacuums, SQLite while "
            "others read"
        )
    return "\n".join(lines)
