"""A backbone at work, each row with its own memory: forward, generation, scoring.

It imports no user and no store: import contracts hold that.
"""

from locas_agent.inference.engine import Engine

__all__ = ["Engine"]
