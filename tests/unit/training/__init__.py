"""Tests of how it is learnt; a package, so that its file names may recur elsewhere."""
