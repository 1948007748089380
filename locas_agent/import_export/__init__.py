"""One user's memory as a file, chats of other programs as turns, all of a person as one archive.

Nothing is imported here: commands start without torch.
"""
