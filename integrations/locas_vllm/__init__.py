"""Serve exported memories by vLLM: each is a LoRA on the padded backbone, found by a name of its own.

`names` is for whoever sends requests, and needs neither vLLM nor torch; `resolver` is the plugin inside vLLM. Nothing
is imported here.
"""

__all__: list[str] = []
