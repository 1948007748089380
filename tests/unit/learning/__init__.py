"""Tests of what is learnt from, and of when."""
