"""From overflow to an admitted revision: when, for whom, and whether it holds. Nothing is imported here."""
