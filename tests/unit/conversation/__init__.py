"""Tests of turns as messages, tokens and a window; a package, so that its file names may recur elsewhere."""
