"""Rows on the shapes that users run: `smollm2` with its weights, and Qwen3-0.6B's shape, in the dtype of "auto"."""
