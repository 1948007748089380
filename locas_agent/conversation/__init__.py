"""Turns as messages, as tokens, and as a window. Nothing is imported here: commands start without torch."""
