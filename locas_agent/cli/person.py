"""The commands about what a person said: `locas-agent correct`, `import-chats`, `archive`."""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from locas_agent.cli.forget import describe
from locas_agent.cli.model import BackboneOption, ConfigOption, DeviceOption, DtypeOption, open_agent, read_config
from locas_agent.cli.options import (
    DEFAULT_STORE,
    FilesOption,
    JsonOption,
    KeyFileOption,
    StoreOption,
    TenantOption,
    UserOption,
    key_provider,
)
from locas_agent.cli.output import deliver, progress_bar, table, turn_facts
from locas_agent.config import StoreSettings
from locas_storage import UserKey, open_store


def correct(
    turn: Annotated[int, typer.Argument(min=1, help="Number of the turn, as `turns` prints it.")],
    text: Annotated[str, typer.Argument(help="What it should have said.")],
    user: UserOption,
    tenant: TenantOption = "default",
    backbone: BackboneOption = "tiny",
    store: StoreOption = DEFAULT_STORE,
    device: DeviceOption = None,
    dtype: DtypeOption = "auto",
    config: ConfigOption = None,
    key_file: KeyFileOption = None,
    files: FilesOption = None,
    json: JsonOption = None,
) -> None:
    """Put another text in the place of what was said in a turn.

    What was learnt from the old text goes at once; a worker then learns the remaining turns again.
    """
    kept = StoreSettings(files=files)
    with open_agent(backbone, store, device, dtype, read_config(config), kept, key_file=key_file) as memory:
        made = memory.for_user(user, tenant=tenant).correct(turn, text, wait=False)
    facts = turn_facts(made)
    deliver(json, facts, f"turn {turn} is turn {made.seq} now", describe(made.receipt, store))


def import_chats(
    path: Annotated[Path, typer.Argument(help="The .zip that ChatGPT or Claude sent, or its conversations.json.")],
    user: UserOption,
    tenant: TenantOption = "default",
    learn: Annotated[
        bool, typer.Option("--learn/--no-learn", help="Whether the turns may be learnt; they are found anyway.")
    ] = True,
    backbone: BackboneOption = "tiny",
    store: StoreOption = DEFAULT_STORE,
    device: DeviceOption = None,
    dtype: DtypeOption = "auto",
    config: ConfigOption = None,
    key_file: KeyFileOption = None,
    json: JsonOption = None,
) -> None:
    """Add the chats of a person with ChatGPT or Claude to the journal; given again, nothing is added."""
    with (
        open_agent(backbone, store, device, dtype, read_config(config), key_file=key_file) as memory,
        progress_bar() as progress,
    ):
        done = memory.for_user(user, tenant=tenant).import_chats(path, learn=learn, progress=progress)
    facts = asdict(done)
    deliver(json, facts, table([name.replace("_", " ") for name in facts], [list(facts.values())]))


def archive(
    path: Annotated[Path, typer.Argument(help="A .zip that does not exist yet.")],
    user: UserOption,
    tenant: TenantOption = "default",
    store: StoreOption = DEFAULT_STORE,
    key_file: KeyFileOption = None,
    files: FilesOption = None,
    json: JsonOption = None,
) -> None:
    """Write everything that is kept of a person to one archive, to be handed to that person; no model.

    What is written is personal data, in the clear; `forget` and `erase` do not reach it.
    """
    from locas_agent.import_export.archive import write_archive

    with closing(open_store(store, files=files, key_provider=key_provider(key_file))) as opened:
        place = write_archive(opened, UserKey(tenant, user), path)
    deliver(
        json,
        {"path": str(place), "bytes": place.stat().st_size, "personal_data": True},
        f"{place}\nThis is personal data of one user: keep it as you would keep the conversations.",
    )
