"""CHAIR over a file of responses."""

import json

import pytest

from recipes.chair import ChairConfig, main


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_file_by_hand(tmp_path, capsys):
    rows = [
        {"objects": ["cat", "table"], "response": "A kitten is on a table. A dog is near."},
        {"objects": ["Dog"], "responses": ["There is a dog.", "There is a CAT."]},
    ]
    (tmp_path / "synonyms.json").write_text('{"cat": ["kitten"]}')
    main(
        ChairConfig(
            responses=[write(tmp_path / "r.jsonl", rows)],
            synonyms=tmp_path / "synonyms.json",
            out=tmp_path / "out" / "chair.json",
        )
    )
    found = json.loads((tmp_path / "out" / "chair.json").read_text())
    assert found["chair_i"]["value"] == pytest.approx(2 / 5)  # dog in the first, cat in the third
    assert found["chair_s"]["value"] == pytest.approx((1 + 0.5) / 2)
    assert found["coverage"]["value"] == pytest.approx(3 / 4)
    assert (found["responses"], found["images"], found["claims"]) == (3, 2, pytest.approx(4 / 3))
    assert "CHAIR_i) 0.400" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"response": "x"}, "`objects`, and it must be a list of texts"),
        ({"objects": ["a"], "responses": "x"}, "`responses`, and it must be a list"),
        ({"objects": ["a"]}, "neither `response`"),
        ({"objects": [], "response": "x"}, "no objects to look for"),
    ],
)
def test_bad_rows_are_refused(tmp_path, row, words):
    with pytest.raises(ValueError, match=words):
        main(ChairConfig(responses=[write(tmp_path / "r.jsonl", [row])]))


@pytest.mark.parametrize("text", ["{", "[1]", '{"a": "b"}'])
def test_bad_synonyms_are_refused(tmp_path, text):
    (tmp_path / "s.json").write_text(text)
    rows = write(tmp_path / "r.jsonl", [{"objects": ["a"], "response": "a"}])
    with pytest.raises(ValueError, match=r"s\.json"):
        main(ChairConfig(responses=[rows], synonyms=tmp_path / "s.json"))
