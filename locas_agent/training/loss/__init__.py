"""What a memory loses on rows, and the gradient of it: the equations, and three ways to run the backbone for them.

The equations (`losses.py`) and the penalty that needs no forward (`local_anchor.py`); the choice of a way
(`backend.py`): the last layer alone (`last_layer.py`), the layers from the lowest memory on (`upper_layers.py`, with
rows packed as `packing.py` lays them out), or a whole forward.

Knows the backbone, memories and token rows; no item, no schedule, no optimiser.
"""
