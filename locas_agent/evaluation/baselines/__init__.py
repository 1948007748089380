"""Peers that memories are measured against, trained on the same training tasks. The library never imports them."""
