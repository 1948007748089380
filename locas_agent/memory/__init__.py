"""A user's tensors: the slab, batches of slabs, the side FFN, bytes and statistics.

It imports no engine and no store: import contracts hold that.
"""

from locas_agent.memory.batch import MemoryBatch
from locas_agent.memory.slab import LocasMemory

__all__ = ["LocasMemory", "MemoryBatch"]
