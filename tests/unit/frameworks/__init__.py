"""Adapters of agent frameworks, against the real packages where they are installed."""
