"""From a turn to an answer. It imports no training: the floors in `pyproject.toml` hold that."""
