"""Measurements: synthetic people, recall, drift, the demo. Knows the public verbs; trains nothing itself."""
