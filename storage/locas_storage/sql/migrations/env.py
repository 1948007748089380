"""Owns how alembic runs our steps: over a connection that is handed to it, in that connection's transaction."""

from alembic import context

from locas_storage.sql.tables.schema import VERSION_TABLE, metadata


def run() -> None:
    """Run the steps that alembic was asked for."""
    context.configure(
        connection=context.config.attributes["connection"],
        target_metadata=metadata,
        version_table=VERSION_TABLE,
        render_as_batch=True,
        transaction_per_migration=False,  # all steps or none: a crash midway leaves the tables as they were
    )
    with context.begin_transaction():
        context.run_migrations()


run()
