"""Consolidation workers and the server of many machines, on Ray: its actors, its routing, its restarts.

State stays in the SQL store; Ray holds none. Needs the extra `ray`. Begin at `workers.py` and `serving.py`.
"""

__all__: list[str] = []
"""Nothing is imported here: the modules need Ray."""
