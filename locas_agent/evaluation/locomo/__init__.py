"""`eval locomo`: conversations as LoCoMo publishes them are told, learnt and asked about, by every arm.

Begin at `run.py`.
"""
