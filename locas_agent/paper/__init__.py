"""The paper's own interface, and its variant for backbones without gates.

It imports no user and no store: import contracts hold that.
"""
