"""The scribe: a memory of the product's own that teaches a backbone to write questions about a turn and to read a turn.

Most small backbones follow no format. Asked for questions they write what nobody would ask, and asked a question they
recite. Rows like those that keep a user's past can keep a skill as well: they are trained once for each backbone, on
made-up turns that ship with the package, and stand beside the backbone while it studies, for every user alike. They
never serve a reply, and hold nothing that anybody said.
"""
