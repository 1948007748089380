"""What every store applies, as pure functions. It imports no database."""
