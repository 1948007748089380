"""Tables, column types, and rows as records."""
