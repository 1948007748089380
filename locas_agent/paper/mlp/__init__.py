"""Locas-MLP, the paper's variant for backbones with a plain ReLU FFN (OPT), for experiments.

`AgentMemory` does not use it: a memory of gated rows (`locas_agent.memory`) and one of these are two different things.
Read in this order: `memory` is what is kept, `backbone` how a forward uses it, `writing` how a token becomes a slot,
`nl_svd` how slots are compressed, `streaming` how a text is learnt while it is read, by writing or by plain backprop.

Shapes everywhere: L layers, T tokens, W width (slots), D hidden size, V vocabulary.

Source: arXiv 2602.05085, Locas-MLP. Where the paper is silent the docstring says what we chose.
"""

from locas_agent.paper.mlp.backbone import ReluBackbone
from locas_agent.paper.mlp.memory import MlpMemory
from locas_agent.paper.mlp.nl_svd import compress
from locas_agent.paper.mlp.streaming import Reading, learn_by_backprop, learn_by_writing
from locas_agent.paper.mlp.writing import clone, write

__all__ = [
    "MlpMemory",
    "Reading",
    "ReluBackbone",
    "clone",
    "compress",
    "learn_by_backprop",
    "learn_by_writing",
    "write",
]
