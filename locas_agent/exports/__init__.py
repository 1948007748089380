"""A memory written into forms that other programs read, and read back: dense checkpoint, LoRA adapter, portable file.

Knows nothing of users, sessions or stores: a backbone and a memory in, files out. `exchange.py` says whose memory it
is.
"""
