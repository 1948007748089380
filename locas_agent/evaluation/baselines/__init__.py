"""Peers that memories are measured against, trained on the same lessons. The library never imports them."""
