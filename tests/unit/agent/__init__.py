"""Tests of what wires the parts together."""
