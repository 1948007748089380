"""`eval passages`: passages are told and learnt, and questions about them are asked without the passage.

Begin at `run.py`.
"""
