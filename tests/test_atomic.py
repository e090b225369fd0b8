"""Files that are whole or not there, folders of one process, and JSON of strangers."""

import json
import multiprocessing

import pytest

from zslkeras import atomic
from zslkeras.errors import InputError


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a.txt"
    atomic.write_text(path, "old")
    with pytest.raises(ZeroDivisionError), atomic.replacing(path) as draft:
        draft.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    (tmp_path / ".a.txt.1234").write_text("of a killed process")
    atomic.write_text(path, "new")
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


def test_numbers_that_json_has_not_are_null(tmp_path):
    atomic.write_json(tmp_path / "a.json", {"T": float("nan"), "rows": [(1.0, float("inf"))], "n": 3})
    assert json.loads((tmp_path / "a.json").read_text()) == {"T": None, "rows": [[1.0, None]], "n": 3}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"{", "cannot be read"),
        (b"\xff{}", "cannot be read"),
        (b"[1]", "holds a list"),
        (b"[" * 100_000, "cannot be read"),
    ],
)
def test_json_that_is_none_is_one_sentence(tmp_path, content, words):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"a.json: {words}.*wanted"):
        atomic.read_json(path)
    assert atomic.read_json(tmp_path / "none.json") == {}


def test_two_names_are_swapped_in_one_step(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    assert atomic.exchange(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "a/b").exists() and (tmp_path / "b/a").exists()
    assert not atomic.exchange(tmp_path / "a", tmp_path / "none")


def hold(folder, ready, done):
    with atomic.locked(folder):
        ready.set()
        done.wait(30)


def test_a_folder_is_of_one_process_at_a_time(tmp_path):
    context = multiprocessing.get_context("spawn")
    ready, done = context.Event(), context.Event()
    holder = context.Process(target=hold, args=(tmp_path, ready, done))
    holder.start()
    assert ready.wait(30)
    with pytest.raises(InputError, match=f"process {holder.pid} works there; wanted one"), atomic.locked(tmp_path):
        pass
    holder.kill()  # its lock goes with it
    holder.join()
    with atomic.locked(tmp_path, wait=True):
        pass


def test_long_rows_of_numbers_have_a_line_each(tmp_path):
    path = tmp_path / "rows.json"
    content = {"name": "x", "rows": [{"a": [1, 2]}, {"a": [3, float("nan")]}], "none": []}
    atomic.write_lines(path, content)
    lines = [
        "{",
        '  "name": "x",',
        '  "rows": [',
        '    {"a": [1, 2]},',
        '    {"a": [3, null]}',
        "  ],",
        '  "none": []',
        "}",
    ]
    assert path.read_text().splitlines() == lines
    assert atomic.read_json(path) == {"name": "x", "rows": [{"a": [1, 2]}, {"a": [3, None]}], "none": []}
