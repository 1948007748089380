"""The peer of `eval passages`: a memory that is trained on the text of a passage and on nothing else.

Knows settings only. What is published of such training reports what it answers best with, whatever it does to other
text; so this arm has the rate that served it best, and no admission gate stands behind it.
"""

from __future__ import annotations

from locas_agent.config import LocasConfig

LEARNING_RATE = 3e-3
"""Peak rate of AdamW. Origin: `docs/results.md`, passages of SQuAD, by passages that are not reported there."""
UNGATED_NATS = 1000.0
"""Drift that no memory reaches: the peer is asked as it is, and its drift is reported."""


def raw_text(config: LocasConfig) -> LocasConfig:
    """Return the settings of the peer: next-token loss at its own rate, without neutral text and without a gate.

    Args:
        config: settings of the evaluation; the shape of a memory and everything else stay as they are there.
    """
    training = config.training.model_copy(
        update={"objective": "ntp", "learning_rate": LEARNING_RATE, "anchor_weight": 0.0}
    )
    admission = config.admission.model_copy(update={"max_drift_nats": UNGATED_NATS})
    return config.model_copy(update={"training": training, "admission": admission})
