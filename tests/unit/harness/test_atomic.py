import threading
from pathlib import Path

import pytest

from driftloop.harness import atomic


def test_a_file_is_replaced_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text("old")
    atomic.write_text(path, "new")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_who_holds_the_old_file_open_keeps_reading_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text("old and whole")
    with path.open() as reader:
        atomic.write_text(path, "new")
        assert reader.read() == "old and whole"


def test_a_reader_never_sees_a_part(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    texts = {"a" * 100_000, "b" * 100_000}
    atomic.write_text(path, "a" * 100_000)
    done = threading.Event()

    def write() -> None:
        for _ in range(20):
            for text in sorted(texts):
                atomic.write_text(path, text)
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    seen = set()
    while not done.is_set():
        seen.add(path.read_text())
    writer.join()
    assert seen <= texts


def test_a_write_that_fails_leaves_the_old_content_and_no_part(tmp_path: Path) -> None:
    path = tmp_path / "taken"
    path.mkdir()
    with pytest.raises(OSError, match="taken"):
        atomic.write_text(path, "new")
    assert list(tmp_path.iterdir()) == [path]
