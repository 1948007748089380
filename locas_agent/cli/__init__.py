"""The command `locas-agent`. Begin at `commands.py`."""

from locas_agent.cli.commands import app, main

__all__ = ["app", "main"]
