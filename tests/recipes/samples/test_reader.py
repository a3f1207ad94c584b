"""Rows by position: order, epochs, duplicates, and readers that start anywhere."""

import pickle
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recipes.samples import reader
from recipes.samples.reader import RowReader, read_lines
from recipes.samples.sample import Rejected


def write(path: Path, lines: list[str]) -> Path:
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


def numbered(folder: Path, count: int) -> Path:
    return write(folder / f"{count}.jsonl", [f'{{"n": {at}}}' for at in range(count)])


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 23), st.integers(1, 9), st.integers(0, 3), st.data())
def test_every_epoch_has_every_row_once_and_any_position_can_be_asked_for(
    tmp_path, monkeypatch, count, window, seed, data
):
    lines = [f'{{"n": {at}}}' for at in range(count)]
    monkeypatch.setattr(reader, "read_lines", lambda path: iter(lines))
    path = write(tmp_path / "rows.jsonl", lines)
    first = RowReader([path], seed, window=window)
    rows = [first.row(position).text for position in range(3 * count)]
    for epoch in range(3):
        assert sorted(rows[epoch * count : (epoch + 1) * count]) == sorted(lines)
    for start in range(0, count, window):  # windows hold consecutive rows
        end = min(start + window, count)
        assert set(rows[start:end]) == set(lines[start:end])
    positions = data.draw(st.lists(st.integers(0, 3 * count - 1), max_size=6))
    other = RowReader([path], seed, window=window)
    assert [other.row(position).text for position in positions] == [rows[position] for position in positions]
    assert (
        pickle.loads(pickle.dumps(first)).row(positions[0] if positions else 0).text
        == rows[positions[0] if positions else 0]
    )


def test_epochs_and_seeds_have_orders_of_their_own(tmp_path):
    path = numbered(tmp_path, 50)

    def order(seed: int, epoch: int) -> list[int]:
        rows = RowReader([path], seed)
        return [rows.row(epoch * 50 + at).values()["n"] for at in range(50)]

    orders = [order(0, 0), order(0, 1), order(1, 0), order(1, 1)]
    assert len({tuple(each) for each in orders}) == 4
    assert all(sorted(each) == list(range(50)) for each in orders)


def test_several_files_blank_lines_and_equal_rows(tmp_path):
    first = write(tmp_path / "a.jsonl", ['{"n": 0}', "", '{"n": 1}', '{"n": 0}', "   "])
    second = write(tmp_path / "b.jsonl", ['{"n": 1}', '{"n": 2}', '{"n": 2}'])
    rows = RowReader([first, second], 0, window=1)
    found = [rows.row(at) for at in range(4)]
    assert [line.values()["n"] for line in found] == [0, 1, 2, 0]
    assert [line.duplicates for line in found] == [0, 0, 2, 1]
    assert (found[2].path, found[2].number) == (second, 2)
    assert found[1].place == f"{first}, line 3"
    assert rows.count == 3
    kept = RowReader([first, second], 0, window=1, distinct=False)
    assert [kept.row(at).values()["n"] for at in range(6)] == [0, 1, 0, 1, 2, 2]


@pytest.mark.parametrize("text", ['{"n": ', "[1]", "7", "{'n': 1}", "[" * 100_000, '{"n": ' + "9" * 5000 + "}"])
def test_a_malformed_row_is_one_sentence_with_its_line(tmp_path, text):
    rows = RowReader([write(tmp_path / "rows.jsonl", ['{"n": 0}', text])], 0, window=1)
    with pytest.raises(Rejected, match=r"rows.jsonl, line 2: .*\.$") as error:
        rows.row(1).values()
    assert error.value.reason == "malformed"
    assert pickle.loads(pickle.dumps(error.value)).reason == "malformed"


def test_bytes_that_are_no_text_spoil_their_own_row_alone(tmp_path):
    path = tmp_path / "a [1] *.jsonl"  # a name that would be a pattern
    path.write_bytes(b'\xef\xbb\xbf{"n": 0}\r\n{"n": "\xff"}\n{"n": "\xe2\x80\xa8"}')
    lines = list(read_lines(path))
    assert [len(lines), lines[0], lines[2]] == [3, '{"n": 0}', '{"n": "\u2028"}']
    rows = RowReader([path], 0, window=1)
    assert [rows.row(0).values(), rows.row(2).values()] == [{"n": 0}, {"n": "\u2028"}]
    with pytest.raises(Rejected, match="malformed JSON"):
        rows.row(1).values()


def test_no_file_and_no_rows(tmp_path):
    with pytest.raises(ValueError, match="there is no such file"):
        RowReader([tmp_path / "no.jsonl"], 0)
    with pytest.raises(ValueError, match="has no rows"):
        RowReader([write(tmp_path / "empty.jsonl", [""])], 0).row(0)
