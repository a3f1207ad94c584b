"""Development rows with pictures, photos and clips, where they are: in the folder that TANDEM_DEV_DATA names, else in
`shared/data` beside the project. From sources to token ids."""

import os
from pathlib import Path

import pytest

from recipes.samples import DataConfig, FilterReport
from tests.base_model.vlm.small import shared

BESIDE = Path(__file__).resolve().parents[4] / "shared" / "data"
DATA = Path(os.environ.get("TANDEM_DEV_DATA") or BESIDE)

pytestmark = pytest.mark.skipif(not (DATA / "mm_qa.jsonl").is_file(), reason=f"no development data in {DATA}")

SOURCES = {
    "qa": {"kind": "qa", "data": str(DATA / "mm_qa.jsonl"), "question": "{question}\nOptions: {options}"},
    "photos": {"kind": "caption", "data": str(DATA / "mm_photo_claims.jsonl"), "text": "caption"},
    "clips": {"kind": "video", "data": str(DATA / "mm_video.jsonl"), "text": "caption"},
    "text": {"kind": "qa", "data": str(DATA / "gsm8k_test.jsonl")},
}


@pytest.mark.slow
def test_every_row_becomes_token_ids():
    _, processor = shared()
    stream = DataConfig.model_validate({"sources": SOURCES}).open(0)
    report = FilterReport()
    rows = {"qa": 75, "photos": 9, "clips": 4, "text": 20}
    for source, count in rows.items():
        for position in range(count):
            found = stream.sources.encoded(source, position, processor)
            report.add(source, found.refused)
            assert found.example.targets > 1
            assert bool(found.example.inputs) == (source != "text")
            if found.example.inputs:
                ends = found.example.inputs["image_bound"][0][:, 1]
                assert int(ends.max()) < found.example.target_spans[0][0]
    assert report.lines() == []
