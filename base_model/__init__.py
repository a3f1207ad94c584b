"""The model and how it learns before reinforcement learning: packed forward pass, fused LM head, supervised warm-up."""
