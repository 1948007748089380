"""Synthetic people: who they are, what they tell, and in which words."""
