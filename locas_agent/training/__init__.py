"""From a study set to a memory: examples, losses and the trainer."""
