"""What one step of training looks at.

A user's items, new and rehearsed and never answered, behind windows and alone, and neutral text: rows of single
questions (`question_rows.py`), everything that a task may draw (`builder.py`), and draws without end (`sampler.py`).

Knows the backbone's tokens and teacher; no memory that serves, no optimiser, no store. Memories and the LoRA peer are
trained on the same examples.
"""
