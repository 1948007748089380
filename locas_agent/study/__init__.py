"""From overflow to a study set: the backbone asks and answers questions about what was said.

Nothing is imported here.
"""
