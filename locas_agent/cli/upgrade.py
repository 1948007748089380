"""The command `upgrade`: users learnt anew on another backbone while the old one serves, and the way back."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from locas_agent.cli.model import BackboneOption, ConfigOption, DeviceOption, DtypeOption, open_agent, read_config
from locas_agent.cli.options import (
    DEFAULT_KEPT,
    DEFAULT_STORE,
    FilesOption,
    InlineBytesOption,
    JsonOption,
    KeepPayloadsOption,
    KeyFileOption,
    StoreOption,
    TenantOption,
)
from locas_agent.cli.output import deliver, progress_bar, table
from locas_agent.cli.signals import stop_on_signals
from locas_agent.config import StoreSettings

if TYPE_CHECKING:
    from locas_agent.results import UserUpgrade


def upgrade(
    to: Annotated[
        str, typer.Option("--to", help="The backbone to move to; what it may be is said at --backbone.", metavar="TEXT")
    ],
    users: Annotated[
        list[str] | None, typer.Option("--users", help="Whom; may be repeated. Everyone of the tenant unless given.")
    ] = None,
    tenant: TenantOption = "default",
    back: Annotated[
        bool, typer.Option("--back", help="Take those who are on --to back to the memory that they had before.")
    ] = False,
    users_at_once: Annotated[int, typer.Option("--users-at-once", min=1, help="Users learnt side by side.")] = 8,
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
    """Learn users anew on another backbone, and move each who recalls as much as before; --backbone is the old one.

    The old one may serve meanwhile. SIGTERM ends it cleanly, and it may be killed: run it again, who was moved is
    passed over. With the same backbone, the shape that --config asks for is learnt. Exit code 1 if a user failed.
    """
    from locas_agent.backbone import Backbone

    kept = StoreSettings(keep_payloads=keep_payloads, files=files, inline_bytes=inline_bytes)
    with (
        stop_on_signals() as stop,
        open_agent(to, store, device, dtype, read_config(config), kept, key_file=key_file) as memory,
        progress_bar() as progress,
    ):
        named = users if users is not None else [key.user for key in memory.users(tenant=tenant)]
        handles = [memory.for_user(name, tenant=tenant) for name in named]
        if back:
            done = memory.undo_upgrade(handles)
        else:
            former = [] if backbone == to else [Backbone.load(backbone, device=device, dtype=dtype)]
            done = memory.upgrade(handles, former=former, users_at_once=users_at_once, stop=stop, progress=progress)
        report = {
            "kind": "upgrade",
            "from": backbone,
            "to": memory.backbone.name,
            "fingerprint": memory.backbone.fingerprint,
            "back": back,
            **_summary(done),
            "users": [_facts(one) for one in done],
        }
    columns = ["user", "status", "reason", "recall_before", "recall_after", "questions", "revision", "detail"]
    deliver(json, report, table(columns, [[_facts(one)[column] for column in columns] for one in done]))
    if any(one.status == "failed" for one in done):
        raise typer.Exit(1)


def _summary(done: list[UserUpgrade]) -> dict[str, Any]:
    """Count what became of users, and average the recall of those of whom both memories were asked."""
    asked = [(one.recall_before, one.recall_after) for one in done]
    both = [(before, after) for before, after in asked if before is not None and after is not None]
    means = [sum(values) / len(both) for values in zip(*both, strict=True)] if both else [None, None]
    counts = Counter(one.status for one in done)
    return {
        "counts": {status: counts[status] for status in ("moved", "kept", "there", "nothing", "failed", "stopped")},
        "recall_before": means[0],
        "recall_after": means[1],
    }


def _facts(one: UserUpgrade) -> dict[str, Any]:
    facts = {name: value for name, value in asdict(one).items() if name != "key"}
    return {"tenant": one.key.tenant, "user": one.key.user, **facts}
