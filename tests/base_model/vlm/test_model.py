"""The whole model: text, images, slices and packed video; padding, order and batch size; saving and loading."""

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor

from base_model.vlm import MiniCPMV, MiniCPMVConfig, MiniCPMVProcessor
from base_model.vlm.presets import build
from tests.base_model.vlm.small import SHRUNK, logits, picture, shared, tiny, video
from tests.tiny import make_tiny_model, make_tiny_tokenizer

IMAGE, VIDEO = "(<image>./</image>)", "(<video>./</video>)"
SAMPLES: dict[str, tuple[str, list[Any], list[Any]]] = {
    "text": ("What is the sum of 3 and 4?", [], []),
    "image": (f"{IMAGE}\nWhat is it?", [picture(100, 100)], []),
    "sliced image": (f"Look: {IMAGE}\nWhat is the answer?", [picture(300, 200, 1)], []),
    "two images": (f"{IMAGE}{IMAGE} Are they the same?", [picture(90, 30, 2), picture(200, 130, 3)], []),
    "video": (f"{VIDEO}\nWhat does it show?", [], [video([6, 6, 2])]),
    "mixed": (f"{IMAGE} and {VIDEO} and {IMAGE}", [picture(50, 60), picture(250, 60)], [video([1, 3], (60, 40))]),
}


def _inputs(processor: MiniCPMVProcessor, names: list[str], **options: Any) -> Any:
    texts, images, videos = zip(*(SAMPLES[name] for name in names), strict=True)
    return processor(list(texts), images=list(images), videos=list(videos), **options)


def _valid(model: MiniCPMV, inputs: Any) -> list[torch.Tensor]:
    """Per row, the logits of its real tokens."""
    return [row[mask.bool()] for row, mask in zip(logits(model, inputs), inputs["attention_mask"], strict=True)]


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_order_and_batch_size_change_nothing(side: str) -> None:
    model, processor = shared()
    alone = {name: _valid(model, _inputs(processor, [name]))[0] for name in SAMPLES}
    names = list(SAMPLES)
    for order in (names, names[::-1], names[2:5]):
        together = _valid(model, _inputs(processor, order, padding_side=side))
        for name, found in zip(order, together, strict=True):
            torch.testing.assert_close(
                found, alone[name], atol=1e-5, rtol=1e-5, msg=lambda text, n=name: f"{n}: {text}"
            )


def test_text_alone_is_the_language_model() -> None:
    model, processor = shared()
    inputs = _inputs(processor, ["text"])
    with torch.no_grad():
        plain = model.llm(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits
    assert torch.equal(logits(model, inputs), plain)


def test_features_stand_in_the_blocks_and_nowhere_else() -> None:
    model, processor = shared()
    inputs = _inputs(processor, ["mixed"])
    media = {name: inputs[name] for name in ("pixel_values", "tgt_sizes", "temporal_ids")}
    with torch.no_grad():
        found = model.embed(inputs["input_ids"], image_bound=inputs["image_bound"], **media)[0]
        features = model.image_features(**media).flatten(0, 1)
        words = model.get_input_embeddings()(inputs["input_ids"])[0]
    unk = processor.tokenizer.convert_tokens_to_ids("<unk>")
    block = inputs["input_ids"][0] == unk
    assert torch.equal(found[block], features)
    assert torch.equal(found[~block], words[~block])


def test_samples_packed_into_one_row_read_the_same_features() -> None:
    """What sequence packing relies on: media are joined, bounds are moved by the tokens before."""
    model, processor = shared()
    samples = [_inputs(processor, [name]) for name in ("mixed", "text", "sliced image")]
    with torch.no_grad():
        apart = [
            model.embed(**{name: sample[name] for name in sample if name != "attention_mask"}) for sample in samples
        ]
        offset, bounds, media = 0, [], {"pixel_values": [], "tgt_sizes": [], "temporal_ids": []}
        for sample in samples:
            if "pixel_values" in sample:
                bounds.append(sample["image_bound"][0] + offset)
                for name, joined in media.items():
                    joined.extend(sample[name][0])
            offset += sample["input_ids"].shape[1]
        media["tgt_sizes"] = torch.stack(media["tgt_sizes"])
        ids = torch.cat([sample["input_ids"] for sample in samples], 1)
        packed = model.embed(ids, image_bound=[torch.cat(bounds)], **{name: [each] for name, each in media.items()})
    torch.testing.assert_close(packed, torch.cat(apart, 1), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("mixed", [False, True])
def test_half_precision_stays_near_and_trains(mixed: bool) -> None:
    """Weights in bf16, and fp32 weights under autocast."""
    model, processor = tiny()
    inputs = _inputs(processor, ["mixed"])
    wanted = logits(model, inputs)
    model = model if mixed else model.to(torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        output = model(**inputs, labels=inputs["input_ids"])
    output.loss.backward()
    assert (output.logits.float() - wanted).abs().mean() < 0.05 * wanted.std()
    assert all(weight.grad.isfinite().all() for weight in model.parameters())


def test_what_an_image_shows_changes_the_answer() -> None:
    model, processor = shared()
    first, second = (processor(f"{IMAGE} it is", images=[picture(100, 100, seed)]) for seed in (0, 1))
    assert (logits(model, first)[0, -1] - logits(model, second)[0, -1]).abs().max() > 1e-3


def test_the_word_that_stands_for_features_is_a_word_elsewhere() -> None:
    """A prompt, or a sampled response, may hold the token: features only go to the processor's places."""
    model, processor = shared()
    inputs = processor(f"<unk>{IMAGE}<unk><image>", images=[picture(100, 100)])
    assert inputs["image_bound"][0].shape == (1, 2)
    start, end = inputs["image_bound"][0][0].tolist()
    unk = processor.tokenizer.convert_tokens_to_ids("<unk>")
    assert (inputs["input_ids"][0] == unk).sum() == 2 + (end - start)
    assert logits(model, inputs).isfinite().all()


def test_the_loss_is_the_language_models_and_reaches_all_parts() -> None:
    model, processor = tiny()
    inputs = _inputs(processor, ["sliced image", "video"], padding_side="right")
    labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)
    output = model(**inputs, labels=labels)
    logprobs = output.logits[:, :-1].log_softmax(-1).gather(2, labels[:, 1:, None].clamp(min=0))[..., 0]
    kept = labels[:, 1:] != -100
    torch.testing.assert_close(output.loss, -(logprobs * kept).sum() / kept.sum())
    output.loss.backward()
    assert all(weight.grad is not None for weight in model.parameters())


def test_gradient_checkpointing_changes_no_gradient() -> None:
    model, processor = tiny()
    inputs = _inputs(processor, ["mixed"])
    gradients = []
    for checkpointing in (False, True):
        model.zero_grad()
        model.train()
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
            assert model.vpm.encoder.layers[0].gradient_checkpointing
        model(**inputs, labels=inputs["input_ids"]).loss.backward()
        gradients.append([weight.grad.clone() for weight in model.parameters()])
    for first, second in zip(*gradients, strict=True):
        torch.testing.assert_close(first, second, atol=1e-6, rtol=1e-4)


def test_generation_continues_each_prompt_as_it_does_alone() -> None:
    model, processor = shared()
    names = ["image", "video", "text"]
    options = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    together = _inputs(processor, names, padding_side="left")
    out = model.generate(**together, **options)
    assert torch.equal(out[:, : together["input_ids"].shape[1]], together["input_ids"])
    for name, row in zip(names, out, strict=True):
        inputs = _inputs(processor, [name])
        ids = inputs["input_ids"]
        for _ in range(6):
            media = {key: inputs[key] for key in inputs if key not in ("input_ids", "attention_mask")}
            ids = torch.cat([ids, logits(model, {"input_ids": ids, **media})[:, -1].argmax(-1, keepdim=True)], 1)
        assert row[-6:].tolist() == ids[0, -6:].tolist(), name


def test_generation_settings_are_saved_and_used(tmp_path: Path) -> None:
    model, processor = tiny()
    assert model.generation_config.eos_token_id == processor.tokenizer.eos_token_id
    model.generation_config.max_new_tokens = 3
    model.generation_config.eos_token_id = None
    model.save_pretrained(tmp_path)
    inputs = _inputs(processor, ["image"])
    for each in (model, MiniCPMV.from_pretrained(tmp_path)):
        assert each.generate(**inputs).shape[1] == inputs["input_ids"].shape[1] + 3


def test_several_samples_of_one_prompt() -> None:
    model, processor = shared()
    inputs = _inputs(processor, ["image"])
    out = model.generate(**inputs, max_new_tokens=3, do_sample=True, num_return_sequences=4, pad_token_id=0)
    assert out.shape[0] == 4


@pytest.mark.parametrize("tied", [True, False])
def test_saved_and_loaded_it_is_the_same(tmp_path: Path, tied: bool) -> None:
    model, processor = tiny(tie_word_embeddings=tied)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    again = AutoProcessor.from_pretrained(tmp_path)
    assert type(again) is MiniCPMVProcessor
    assert again.image_processor.to_dict() == processor.image_processor.to_dict()
    inputs = _inputs(again, list(SAMPLES))
    assert torch.equal(inputs["input_ids"], _inputs(processor, list(SAMPLES))["input_ids"])
    for auto in (AutoModel, AutoModelForCausalLM, AutoModelForImageTextToText):
        loaded, report = auto.from_pretrained(tmp_path, output_loading_info=True)
        assert type(loaded) is MiniCPMV
        assert not report["missing_keys"]
        assert not report["unexpected_keys"]
        first, second = (json.loads(each.config.to_json_string()) for each in (model, loaded))
        assert second == first | {"dtype": "float32", "vision_config": first["vision_config"] | {"dtype": "float32"}}
        assert torch.equal(logits(loaded.eval(), inputs), logits(model, inputs))
        assert (loaded.get_output_embeddings().weight is loaded.get_input_embeddings().weight) == tied


def test_the_saved_configuration_is_the_official_flat_one(tmp_path: Path) -> None:
    model, processor = tiny()
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert saved["architectures"] == ["MiniCPMV"]
    assert (saved["model_type"], saved["version"], saved["text_model_type"]) == ("minicpmv", 4.5, "qwen3")
    assert (saved["hidden_size"], saved["num_hidden_layers"], saved["query_num"]) == (256, 2, 4)
    assert "text_config" not in saved
    assert saved["vision_config"]["hidden_size"] == 128
    images = json.loads((tmp_path / "preprocessor_config.json").read_text())
    assert (images["image_processor_type"], images["image_feature_size"]) == ("MiniCPMVImageProcessor", 4)


def test_any_language_model_can_be_taken_over(tmp_path: Path) -> None:
    llm = AutoModelForCausalLM.from_pretrained(make_tiny_model(tmp_path / "llm", "llama"))
    tokenizer = make_tiny_tokenizer()
    before = llm(torch.tensor([[5, 6, 7]])).logits
    vocabulary = before.shape[2]
    model, processor = build("tiny", tokenizer, llm=llm, query_num=4)
    assert model.config.text_model_type == "llama"
    assert model.config.vocab_size == len(tokenizer) == vocabulary + 7
    inputs = {"input_ids": torch.tensor([[5, 6, 7]])}
    torch.testing.assert_close(logits(model, inputs)[..., :vocabulary], before.detach())
    model.save_pretrained(tmp_path / "vlm")
    loaded = MiniCPMV.from_pretrained(tmp_path / "vlm")
    assert type(loaded.llm).__name__ == "LlamaForCausalLM"
    inputs = processor(f"{IMAGE} what", images=[picture(60, 70)])
    assert torch.equal(logits(loaded.eval(), inputs), logits(model.eval(), inputs))


def test_building_is_a_function_of_the_seed() -> None:
    state = torch.random.get_rng_state()
    models = [build("tiny", make_tiny_tokenizer(), seed=seed, **SHRUNK)[0] for seed in (1, 1, 2)]
    assert torch.equal(torch.random.get_rng_state(), state)
    weights = [torch.cat([weight.flatten() for weight in model.parameters()]) for model in models]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_fields_of_the_language_model_are_read_and_written_through(tmp_path: Path) -> None:
    config = MiniCPMVConfig(hidden_size=128, num_hidden_layers=2, vision_config={"hidden_size": 64})
    assert config.hidden_size == config.text_config.hidden_size == 128
    config.use_cache = False
    assert config.text_config.use_cache is False
    config.save_pretrained(tmp_path)
    assert MiniCPMVConfig.from_pretrained(tmp_path).use_cache is False
    for copied in (pickle.loads(pickle.dumps(config)), copy.deepcopy(config)):
        assert copied.to_dict() == config.to_dict()
        assert copied.hidden_size == 128
    with pytest.raises(AttributeError, match="no_such_field"):
        config.no_such_field  # noqa: B018
    with pytest.raises(ValueError, match="hidden_size came beside a text_config"):
        MiniCPMVConfig(text_config=config.text_config, hidden_size=64)


def test_an_unknown_language_model_is_refused() -> None:
    with pytest.raises(ValueError, match="text_model_type is 'gpt9'"):
        MiniCPMVConfig(text_model_type="gpt9")


def test_media_that_do_not_match_are_refused() -> None:
    model, processor = shared()
    inputs = dict(_inputs(processor, ["sliced image"]))
    with pytest.raises(ValueError, match="without tgt_sizes and image_bound"):
        model(input_ids=inputs["input_ids"], pixel_values=inputs["pixel_values"])
    bounds = inputs["image_bound"]
    with pytest.raises(ValueError, match="blocks for"):
        model(**inputs | {"image_bound": [bounds[0][:-1]]})
    with pytest.raises(ValueError, match="has 3 tokens, but the model makes 4"):
        model(**inputs | {"image_bound": [bounds[0] - torch.tensor([0, 1])]})


def test_the_language_models_attention_does_not_reach_the_tower() -> None:
    """The packed attention of the trainer has no meaning for views."""
    from base_model.packed_attention import NAME, register

    register()
    model, processor = tiny()
    model.llm.set_attn_implementation(NAME)
    inputs = _inputs(processor, ["image"])
    with torch.no_grad():
        assert model.embed(**{name: inputs[name] for name in inputs if name != "attention_mask"}).isfinite().all()
    with pytest.raises(ValueError, match="without a layout"):
        model(**inputs)
