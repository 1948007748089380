"""From a turn to an answer. It imports no training."""
