"""vLLM serves the vision-language model: a plug-in that vLLM finds by its entry point (`vllm.general_plugins`).

Image processor, vision tower and resampler are the very code of `base_model.vlm`; only the language model is vLLM's. So
images, slices and really packed videos are read as in training, without remote code or torchvision.
"""

ARCHITECTURE = "MiniCPMV"


def register() -> None:
    """Makes vLLM know the checkpoints; called by vLLM in each of its processes, and harmless when repeated."""
    from vllm import ModelRegistry

    import base_model.vlm  # noqa: F401 (makes AutoConfig know the layout)

    # By name: the class is imported where a checkpoint of this architecture is loaded, and nowhere else.
    ModelRegistry.register_model(ARCHITECTURE, "base_model.vllm_plugin.model:PackedMiniCPMV")
