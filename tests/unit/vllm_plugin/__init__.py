"""Tests of `locas_vllm`; a folder called `vllm` would be found in the place of vLLM."""
