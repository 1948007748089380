"""Ways to compute parts of a decoder that are faster somewhere than what transformers takes by itself."""
