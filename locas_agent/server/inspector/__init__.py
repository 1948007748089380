"""Pages for the person whose memory it is, and for the operator: what was said, what was learnt of it, and what to do.

Rendered here, without scripts and without anything from elsewhere. Every page stands on verbs of `UserMemory`.
"""
