"""Tests of a user's tensors; a package, so that its file names may recur elsewhere."""
