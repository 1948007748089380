"""Adapters of agent frameworks over the verbs of `locas_agent`, one module for each framework and its extra.

They hold no logic of their own. Nothing is imported here: import the module of the framework you have.
"""

__all__: list[str] = []
