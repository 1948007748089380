"""Tests of the paper's own interface; a package, so that its file names may recur elsewhere."""
