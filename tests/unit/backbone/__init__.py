"""Tests of the frozen model; a package, so that its file names may recur elsewhere."""
