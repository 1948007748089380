"""From a study set to a memory: examples, losses and the trainer. It imports no store's database."""
