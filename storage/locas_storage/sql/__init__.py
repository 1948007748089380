"""A store in SQLite or PostgreSQL. Begin at `store.py`."""
