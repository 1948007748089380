"""Tests of when it is learnt, and of what becomes of it; a package, so that its file names may recur elsewhere."""
