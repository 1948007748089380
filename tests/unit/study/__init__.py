"""Tests of what is learnt from; a package, so that its file names may recur elsewhere."""
