"""A memory written into forms that other programs read, and read back: dense checkpoint, LoRA adapter, portable file.

`exchange.py` says whose memory it is.
"""
