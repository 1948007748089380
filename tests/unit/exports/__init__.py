"""Tests of a memory in other formats; a package, so that its file names may recur elsewhere."""
