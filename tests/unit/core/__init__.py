"""What tests of tensors share: random models of every architecture, .gguf files, greedy decoding checked."""
