"""What the commands share: the options that mean the same everywhere, and how an error of ours ends a command."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from locas_agent.cli.output import STDOUT
from locas_agent.config import StoreSettings
from locas_agent.types import DEFAULT_STORE as DEFAULT_STORE
from locas_storage import EnvironmentKeyProvider, FileKeyProvider, KeyProvider, LocasError

DEFAULT_KEPT = StoreSettings()
KEYS_VARIABLE = "LOCAS_KEYS"
"""Holds the keys themselves, for machines that are given their secrets in the environment."""


class CommandGroup(TyperGroup):
    """Turns an error of ours into one line on standard error and exit code 1.

    Any other is a bug and keeps its traceback.
    """

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except LocasError as error:
            typer.echo(f"locas-agent: {' '.join(str(error).split())}", err=True)
            raise typer.Exit(1) from error


def json_target(path: str | None) -> str | None:
    """Refuse a place that cannot be written before hours of work go into what would be written there."""
    if path not in (None, STDOUT):
        place = Path(str(path))
        if place.is_dir() or not place.absolute().parent.is_dir():
            raise typer.BadParameter(
                f"{path} is a folder, or lies in none: name a file in an existing folder, or - for standard output"
            )
    return path


def picture_target(path: Path | None) -> Path | None:
    """Refuse a picture that cannot be drawn before hours of work go into what it would show."""
    if path is not None:
        from locas_agent.plots import check_picture

        check_picture(path)
    return path


def key_provider(key_file: str | None) -> KeyProvider | None:
    """Return where a command takes its keys from.

    The file it was given, else the environment; None for a store in the clear.
    """
    if key_file is not None:
        return FileKeyProvider(key_file)
    return EnvironmentKeyProvider(KEYS_VARIABLE) if os.environ.get(KEYS_VARIABLE) else None


StoreOption = Annotated[
    str, typer.Option("--store", help="SQLAlchemy URL of the database; sqlite:// is one in memory.")
]
KeyFileOption = Annotated[
    str | None,
    typer.Option(
        "--key-file",
        metavar="PATH",
        envvar="LOCAS_KEY_FILE",
        help=f"Keys of an encrypted store, made by `keys new`; else {KEYS_VARIABLE} holds them.",
    ),
]
FilesOption = Annotated[
    str | None,
    typer.Option(
        "--files",
        envvar="LOCAS_FILES",
        help="Folder or bucket where the store keeps large payloads, if not all in the database.",
    ),
]
KeepPayloadsOption = Annotated[
    int, typer.Option("--keep-payloads", min=1, help="Memories kept of each user, the newest; older ones are pruned.")
]
InlineBytesOption = Annotated[
    int, typer.Option("--inline-bytes", min=0, help="Largest payload in the database when --files is given.")
]
UserOption = Annotated[str, typer.Option("--user", help="Whose memory.")]
TenantOption = Annotated[str, typer.Option("--tenant", help="The tenant the user belongs to.")]
JsonOption = Annotated[
    str | None,
    typer.Option(
        "--json",
        metavar="PATH",
        callback=json_target,
        help="Write JSON there; - is standard output, and nothing else goes there.",
    ),
]
PlotOption = Annotated[
    Path | None,
    typer.Option("--plot", metavar="FILE", callback=picture_target, help="Picture of the figures: .png, .svg or .pdf."),
]
AnswersOption = Annotated[
    Path | None,
    typer.Option(
        "--answers",
        metavar="FILE",
        help="Keep raw answers as JSON lines; with the same --store a stopped run goes on.",
    ),
]
