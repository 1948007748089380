"""Hand-written people of the talk schema: what they say over dated sessions, and what may be asked of them."""
