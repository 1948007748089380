"""Frozen records and their bounds: what goes into a store and comes out of it."""
