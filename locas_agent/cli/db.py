"""`locas-agent db`: show the version of a database's tables, and upgrade them to the one this package expects."""

from __future__ import annotations

import typer

from locas_agent.cli.options import DEFAULT_STORE, CommandGroup, JsonOption, StoreOption
from locas_agent.cli.output import deliver
from locas_storage import SchemaVersion, check_schema, schema_version, upgrade_schema

databases = typer.Typer(cls=CommandGroup, no_args_is_help=True, help="Versions of the tables.")


@databases.command()
def current(store: StoreOption = DEFAULT_STORE, json: JsonOption = None) -> None:
    """Print the version the tables are at and the one expected; changes nothing and does not fail when they differ."""
    _show(json, schema_version(store))


@databases.command()
def check(store: StoreOption = DEFAULT_STORE, json: JsonOption = None) -> None:
    """Exit with 0 if the tables are at the expected version, else with 1 and the command to run; changes nothing."""
    _show(json, check_schema(store))


@databases.command()
def upgrade(store: StoreOption = DEFAULT_STORE, json: JsonOption = None) -> None:
    """Bring the tables to the expected version, all steps or none; makes them in an empty database.

    Make a backup before.
    """
    before = schema_version(store)
    _show(json, upgrade_schema(store), before.current)


def _show(json: str | None, version: SchemaVersion, before: str | None = None) -> None:
    facts = {"current": version.current, "expected": version.expected, "is_current": version.is_current}
    was = f" (was at {before})" if before not in (None, version.current) else ""
    deliver(json, facts, f"tables at version {version.current or '- (none yet)'}{was}, expected {version.expected}")
