"""How a backbone is best asked: forms of reading and of writing, and the measurement that picks among them.

Which wording a language model can read and write is a property of the model, and differs by a factor of twenty between
models of one size. So nothing here is assumed: `calibration.py` tries each form of the two tables on made-up talk and
keeps what works. A new form is one entry of `reading.py` or `writing.py`.
"""
