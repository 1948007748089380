"""`eval pg19`: perplexity over whole books, scored before learnt, by every arm. Begin at `run.py`."""
