"""Measurements: synthetic people, recall, drift, the demo. It trains through the public verbs alone."""
