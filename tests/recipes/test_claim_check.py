"""The check of a labeler: reading labelled claims, wrong captions, and a run from the command line."""

import json
from pathlib import Path

import pytest

from recipes.claim_check import ClaimCheckConfig, main
from recipes.labelled_claims import RenderedClaims, as_claim, read_claims, rendered_responses
from tests.base_model.vlm.small import picture

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


CLAIMS = [{"claim": "The animal is a cat.", "label": True}, {"claim": "It barks at cats.", "label": False}]


def test_labelled_claims_of_a_file(tmp_path):
    picture(60, 50).save(tmp_path / "a.png")
    rows = [
        {"image": "a.png", "claims": CLAIMS},
        {"image": "gone.png", "claims": CLAIMS[:1]},
        {"image": "../a.png", "claims": CLAIMS[:1]},
        {"claims": [{"claim": "Two is even.", "label": True, "question": "Is two even?"}]},
        {"videos": ["a.png"], "claims": []},
    ]
    found = list(read_claims(write(tmp_path / "claims.jsonl", rows)))
    assert [item.truth for item in found] == [True, False, True, True, True]
    assert [item.group for item in found] == ["image"] * 4 + ["text"]
    assert found[0].media is found[1].media
    assert found[0].claim.question == "Is the animal a cat?"
    assert found[1].claim.question == "Is it true that it barks at cats?"
    assert found[4].claim.question == "Is two even?"
    assert "no file" in found[2].problem
    assert "lies outside" in found[3].problem


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"image": "a.png"}, "no `claims`"),
        ({"claims": [{"claim": "x", "label": "true"}]}, "the label of 'x' is 'true', not true or false"),
        ({"claims": ["x"]}, "'x' is no claim"),
        ({"claims": [{"claim": " ", "label": True}]}, "is no claim"),
    ],
)
def test_rows_that_are_no_labelled_claims_are_refused(tmp_path, row, words):
    with pytest.raises(ValueError, match=words):
        list(read_claims(write(tmp_path / "claims.jsonl", [row])))


@pytest.mark.parametrize(
    ("text", "question"),
    [
        ("A kite is flying in the sky.", "Is a kite flying in the sky?"),
        ("There are two kittens.", "Are there two kittens?"),
        ("People are playing basketball.", "Are people playing basketball?"),
        ("Blorp the zing", "Is it true that Blorp the zing?"),
    ],
)
def test_a_sentence_as_a_claim(text, question):
    assert as_claim(text).question == question


def test_wrong_captions_have_wrong_claims_and_right_ones_have_none():
    config = RenderedClaims(items=20)
    responses = list(rendered_responses(config))
    assert all(response.faultless for response in responses[::2])
    assert sum(not response.faultless for response in responses[1::2]) >= 18
    kinds = {claim.claim.kind.value for response in responses for claim in response.claims if not claim.truth}
    assert {"colour", "presence", "count", "action"} <= kinds
    assert [r.text for r in rendered_responses(config)] == [r.text for r in responses]


def test_nothing_to_check_is_refused():
    with pytest.raises(ValueError, match="nothing to check"):
        ClaimCheckConfig(model={"path": "x"})


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    from tests.rollouts.vision import save_tiny

    folder = tmp_path_factory.mktemp("labeler")
    save_tiny(folder)
    return folder


@pytest.mark.slow
def test_a_run_over_files_and_rendered_claims(tmp_path, checkpoint, capsys):
    picture(60, 50).save(tmp_path / "a.png")
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    (tmp_path / "bad.mp4").write_bytes(b"\0\0\0\x20ftypisom" + b"\0" * 50)
    rows = [{name: file, "claims": CLAIMS} for name, file in
            (("image", "a.png"), ("image", "bad.png"), ("image", "gone.png"), ("video", "bad.mp4"))]  # fmt: skip
    claims, problems = [write(tmp_path / "claims.jsonl", rows)], 6
    if DATA.is_dir():  # one of the clips has corrupt last frames
        claims.append(DATA / "mm_video.jsonl")
    config = ClaimCheckConfig(
        model={"path": str(checkpoint)},
        claims=claims,
        rendered={"items": 3, "render": {"mixture": {"grid": 1, "turns": 1}}},
        engine={"dtype": "float32", "max_model_len": 4096, "kv_cache_gib": 0.5, "threads": 1},
        out=tmp_path / "out",
    )
    main(config)
    found = json.loads((tmp_path / "out" / "claim_check.json").read_text())
    assert found["failed"] == problems
    assert found["results"][str(claims[0])]["claims"][0]["claims"] == 2
    assert found["results"]["rendered"]["responses"]["responses"] == 6
    assert all(
        result["claims"][0]["problems"] == 0 for path, result in found["results"].items() if path != str(claims[0])
    )
    records = [json.loads(line) for line in (tmp_path / "out" / "claim_check.jsonl").read_text().splitlines()]
    assert sum(record["problem"] is not None for record in records) == problems
    assert f"{problems} without an answer" in capsys.readouterr().out
