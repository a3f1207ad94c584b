"""Configuration of the vision-language model, in the layout of the official MiniCPM-V 4.5 checkpoint.

``config.json`` is flat: the language model's own fields stand beside the vision fields, and ``text_model_type`` names
the language model (Qwen3 where it is absent, as in the official file). In memory they are two objects,
``text_config`` and ``vision_config``; reading a language model's field from the outer object works all the same, as
engines made for the flat layout do.
"""

from dataclasses import fields
from typing import Any, ClassVar

from transformers import AutoConfig, PreTrainedConfig, SiglipVisionConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

OFFICIAL_VISION = {
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "image_size": 980,
    "patch_size": 14,
}
"""SigLIP2 so400m with a 70 x 70 position table, the tower of MiniCPM-V 4.5."""

_LEGACY_TEXT_FIELDS = {"rope_theta", "rope_scaling", "partial_rotary_factor"}
_COMMON = {item.name for item in fields(PreTrainedConfig)} | {"model_type"}


class MiniCPMVConfig(PreTrainedConfig):
    """A language model, a SigLIP-type vision tower and a 3D-resampler between them.

    Args:
        version: of the layout; engines choose their code by it.
        query_num: tokens of one view or package.
        image_size: side of the square whose area a view should have, in pixels.
        patch_size: side of a patch; always the vision tower's.
        drop_vision_last_layer: leave the tower's last layer out.
        batch_vision_input: kept for engines; views are always batched by size.
        vision_batch_size: most views that the tower computes at a time.
        batch_3d_resampler: kept for engines; packages are always batched by size.
        use_image_id: whether images are numbered in the prompt.
        slice_mode: whether images are cut.
        slice_config: ``max_slice_nums``, ``patch_size``, ``scale_resolution``.
        text_model_type: ``model_type`` of the language model.
        text_config: the language model's configuration, or its fields; None = taken from the flat fields.
        vision_config: the tower's configuration, or its fields; None = the official tower.
        **kwargs: the language model's fields (flat layout), and the fields every configuration has.
    """

    model_type = "minicpmv"
    sub_configs: ClassVar[dict[str, Any]] = {"text_config": AutoConfig, "vision_config": SiglipVisionConfig}
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["past_key_values"]

    version: float = 4.5
    query_num: int = 64
    image_size: int = 448
    patch_size: int = 14
    drop_vision_last_layer: bool = False
    batch_vision_input: bool = True
    vision_batch_size: int = 16
    batch_3d_resampler: bool = True
    use_image_id: bool = True
    slice_mode: bool = True
    slice_config: Any = None
    text_model_type: str = "qwen3"
    text_config: Any = None
    vision_config: Any = None

    def __post_init__(self, **kwargs: Any) -> None:
        text, kwargs = self._read_text(kwargs)
        self.text_config = None  # the common part below must not take the language model's fields for its own
        self.text_model_type = text.model_type
        self.vision_config = _read_vision(self.vision_config)
        self.patch_size = self.vision_config.patch_size
        self.slice_config = {
            "max_slice_nums": 9,
            "scale_resolution": self.image_size,
            "model_type": self.model_type,
            **(self.slice_config or {}),
            "patch_size": self.patch_size,
        }
        super().__post_init__(**kwargs)
        self.text_config = text
        if self._attn_implementation is not None:
            text._attn_implementation = self._attn_implementation
        if self.dtype is not None:
            text.dtype = self.vision_config.dtype = self.dtype

    def _read_text(self, kwargs: dict[str, Any]) -> tuple[PreTrainedConfig, dict[str, Any]]:
        """The language model's configuration, and the keywords that are not its own."""
        if isinstance(self.text_config, PreTrainedConfig):
            clash = sorted(_text_fields(type(self.text_config)) & set(kwargs))
            if clash:
                raise ValueError(f"{', '.join(clash)} came beside a text_config, which has its own; set it there")
            return self.text_config, kwargs
        given = dict(self.text_config or {})
        kind = given.pop("model_type", self.text_model_type)
        if kind not in CONFIG_MAPPING:
            raise ValueError(
                f"text_model_type is {kind!r}, which this version of transformers does not know; "
                "name the model_type of a causal language model, such as qwen3 or llama"
            )
        own = _text_fields(CONFIG_MAPPING[kind])
        given |= {name: value for name, value in kwargs.items() if name in own}
        return CONFIG_MAPPING[kind](**given), {name: value for name, value in kwargs.items() if name not in own}

    def __getattr__(self, name: str) -> Any:
        """A field of the language model, asked of the outer object; only reached where the object has none itself."""
        text = self.__dict__.get("text_config")
        if name.startswith("_") or not isinstance(text, PreTrainedConfig):
            raise AttributeError(f"{type(self).__name__} has no field {name!r}")
        return getattr(text, name)

    def __setattr__(self, name: str, value: Any) -> None:
        text = self.__dict__.get("text_config")
        if isinstance(text, PreTrainedConfig) and name not in _OURS and name in text.__dict__ and name[0] != "_":
            setattr(text, name, value)
        else:
            super().__setattr__(name, value)

    def to_dict(self) -> dict[str, Any]:
        """The flat layout: the language model's fields beside the others."""
        ours = super().to_dict()
        text = ours.pop("text_config")
        return {name: value for name, value in text.items() if name not in _COMMON} | ours


_OURS = {item.name for item in fields(MiniCPMVConfig)}


def _text_fields(kind: type[PreTrainedConfig]) -> set[str]:
    """Names that belong to a language model's configuration and not to every configuration."""
    return ({item.name for item in fields(kind)} - _COMMON) | set(kind.attribute_map) | _LEGACY_TEXT_FIELDS


def _read_vision(given: Any) -> SiglipVisionConfig:
    if isinstance(given, PreTrainedConfig):
        return given
    fields_given = OFFICIAL_VISION if given is None else given
    return SiglipVisionConfig(**{name: value for name, value in fields_given.items() if name != "model_type"})
