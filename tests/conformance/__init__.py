"""The method against its equations; a package, so that its file names may recur elsewhere."""
