"""An HTTP server in the forms of OpenAI's interface: every answer with the memory of the user whom its key names.

It holds no logic of memories: `AgentMemory` and `UserMemory` do the work, this package says who calls, which turns are
new, and in which form an answer goes out. Needs the extra `serve`. Begin at `app.py`.
"""
