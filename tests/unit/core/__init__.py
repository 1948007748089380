"""Tests of the tensor core; a package, so that its file names may recur elsewhere."""
