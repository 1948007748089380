"""A memory written into forms that other programs read, and read back: dense checkpoint, LoRA adapter, portable file.

`import_export.memory_files` says whose memory it is.
"""
