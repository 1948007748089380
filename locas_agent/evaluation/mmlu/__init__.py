"""`eval mmlu`: a task of lm-evaluation-harness with the memory on and off, compared question by question.

Begin at `run.py`.
"""
