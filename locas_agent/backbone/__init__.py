"""The frozen language model: loading, its FFNs, its fingerprint, and the way into a forward.

It imports no memory, no user and no store: import contracts hold that.
"""

from locas_agent.backbone.model import Backbone

__all__ = ["Backbone"]
