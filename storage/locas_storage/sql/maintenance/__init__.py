"""Checking a database, rotating keys, encrypting what is in the clear."""
