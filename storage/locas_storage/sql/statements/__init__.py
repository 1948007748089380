"""Statements over the tables, one module for each subject; each works within the caller's transaction."""
