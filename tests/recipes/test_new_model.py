"""A new model's folder: what loads it, what it is made of, and what is refused."""

import json

import pytest
import torch
from PIL import Image

import base_model.vlm  # noqa: F401
from recipes.new_model import NewModelConfig, TokenizerTexts, corpus, main
from recipes.render import RenderSource
from tests.tiny import make_tiny_model

SCENES = RenderSource(mixture={"scene": 1}, side=(112, 112))
TEXTS = TokenizerTexts(vocab_size=500, source=SCENES, rows=150)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    out = tmp_path_factory.mktemp("models") / "tiny"
    main(NewModelConfig(out=out, texts=TEXTS))
    return out


def test_the_folder_loads_and_answers(tiny):
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model = AutoModelForImageTextToText.from_pretrained(tiny)
    processor = AutoProcessor.from_pretrained(tiny)
    messages = [{"role": "user", "content": [{"type": "image", "image": Image.new("RGB", (112, 112), "red")}]}]
    inputs = processor.apply_chat_template(messages, tokenize=True, add_generation_prompt=True)
    out = model.generate(**inputs, max_new_tokens=3, do_sample=False)
    assert out.shape[1] > inputs["input_ids"].shape[1]
    assert model.generation_config.eos_token_id == processor.tokenizer.eos_token_id
    assert model.get_input_embeddings().num_embeddings == len(processor.tokenizer) <= 500


def test_the_folder_has_what_engines_look_for(tiny):
    config = json.loads((tiny / "config.json").read_text())
    assert config["model_type"] == "minicpmv"
    assert config["vision_config"]["hidden_size"] > 0
    assert (tiny / "model.safetensors").is_file()
    assert (tiny / "preprocessor_config.json").is_file()


def test_the_seed_decides_the_weights(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        main(NewModelConfig(out=tmp_path / name, texts=TEXTS, seed=seed))
    a, b, c = ((tmp_path / name / "model.safetensors").read_bytes() for name in "abc")
    assert a == b
    assert a != c


def test_a_language_model_brings_its_weights_and_tokenizer(tmp_path):
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoTokenizer

    llm = make_tiny_model(tmp_path / "llm", hidden_size=128)
    main(NewModelConfig(out=tmp_path / "vlm", llm=str(llm)))
    old = AutoModelForCausalLM.from_pretrained(llm)
    new = AutoModelForImageTextToText.from_pretrained(tmp_path / "vlm")
    words = AutoTokenizer.from_pretrained(llm)("Work step by step.")["input_ids"]
    assert AutoTokenizer.from_pretrained(tmp_path / "vlm")("Work step by step.")["input_ids"] == words
    ids = torch.tensor([words])
    known = old.get_input_embeddings().num_embeddings  # the new tokens' logits come after these
    torch.testing.assert_close(new(input_ids=ids).logits[..., :known], old(input_ids=ids).logits)


def test_an_existing_folder_is_kept(tiny):
    with pytest.raises(ValueError, match="there already"):
        main(NewModelConfig(out=tiny, texts=TEXTS))


def test_texts_of_files_are_read(tmp_path):
    (tmp_path / "a.txt").write_text("one\ntwo\n")
    (tmp_path / "b.jsonl").write_text('{"q": "three", "deep": [{"text": "four"}], "n": 5}\n')
    texts = TokenizerTexts(rows=0, files=[tmp_path / "a.txt", tmp_path / "b.jsonl"])
    assert list(corpus(texts)) == ["one", "two", "three", "four"]


def test_a_file_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="cannot be read as UTF-8"):
        list(corpus(TokenizerTexts(rows=0, files=[tmp_path / "a.txt"])))


def test_rendered_questions_and_answers_are_read():
    texts = list(corpus(TEXTS))
    assert any("How many" in text for text in texts)
    assert any("From left to right I see" in text for text in texts)


def test_a_trained_tower_is_taken_with_its_size_and_scale(tmp_path):
    from transformers import AutoModelForImageTextToText

    seeing, new = tmp_path / "seeing", tmp_path / "new"
    main(NewModelConfig(out=seeing, texts=TEXTS, seed=3))
    main(NewModelConfig(out=new, texts=TEXTS, tower=str(seeing), changes={"query_num": 4}))
    old, made = (AutoModelForImageTextToText.from_pretrained(folder) for folder in (seeing, new))
    assert made.config.query_num == 4
    for name, weight in old.vpm.state_dict().items():
        assert torch.equal(weight, made.vpm.state_dict()[name]), name
    assert not torch.equal(old.llm.lm_head.weight, made.llm.lm_head.weight)


def test_towers_that_cannot_be_taken(tmp_path, tiny):
    llm = make_tiny_model(tmp_path / "llm")
    with pytest.raises(ValueError, match="without a vision tower of this layout"):
        main(NewModelConfig(out=tmp_path / "a", texts=TEXTS, tower=str(llm)))
    with pytest.raises(ValueError, match="leave one of them out"):
        main(NewModelConfig(out=tmp_path / "b", texts=TEXTS, tower=str(tiny), changes={"vision_config": {}}))
