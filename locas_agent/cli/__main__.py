"""`python -m locas_agent.cli` is the command, where it is not installed."""

from locas_agent.cli.commands import main

main()
