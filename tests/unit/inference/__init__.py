"""Tests of a backbone at work; a package, so that its file names may recur elsewhere."""
