"""From a pretrained Llama, Mistral or Qwen to a Liger adapter (arXiv 2503.01496)."""
