"""Tests of losses; a package, so that its file names may recur elsewhere."""
