"""Connections to SQLite and PostgreSQL: settings, and errors in our words."""
