"""Chats of other programs, and a person's archive."""
