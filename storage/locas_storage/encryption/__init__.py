"""How content is encrypted, and where keys come from."""
