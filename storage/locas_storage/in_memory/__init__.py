"""A store in dictionaries, for tests and trials."""
