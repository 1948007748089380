"""A server of the Model Context Protocol: an agent of any make remembers, looks up and forgets with a user's memory.

It holds no logic of memories: `UserMemory` does the work, this package says who calls and in which form it answers.
Needs the extra `mcp`. Begin at `tools.py`.
"""
