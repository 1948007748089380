"""`eval recall`: people tell facts over sessions, and are asked when the sessions are out of the context.

Begin at `run.py`.
"""
