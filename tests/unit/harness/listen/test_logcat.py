"""A log's lines, in whatever format they were saved."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from driftloop.harness.errors import AuditError
from driftloop.harness.listen import logcat

TEXT = "llama_context: n_ctx         = 1024"


@pytest.mark.parametrize(
    "line",
    [
        f"11-27 17:43:00.123  1234  1256 I llama-android: {TEXT}",
        f"2026-11-27 17:43:00.123  1234  1256 I llama-android: {TEXT}",
        f"11-27 17:43:00.123 u0_a123  1234  1256 I llama android : {TEXT}",
        f"11-27 17:43:00.123456 +0100  1234  1256 I llama: {TEXT}",
        f"11-27 17:43:00.123 I/llama-android( 1234): {TEXT}",
        f"I/llama-android( 1234): {TEXT}",
        f"I( 1234) {TEXT}",
        f"2026-11-27 17:43:00.123  1234-1256  llama-android  com.example.app  I  {TEXT}",
    ],
    ids=["threadtime", "year", "uid", "zone", "time", "brief", "process", "studio"],
)
def test_the_message_is_told_from_what_logcat_puts_before_it(line: str) -> None:
    found = logcat.parsed(7, f"{line}\r\n")
    assert (found.number, found.pid) == (7, 1234)
    assert found.text.startswith(TEXT)


@pytest.mark.parametrize("line", [f"I/llama-android: {TEXT}", TEXT], ids=["tag", "raw"])
def test_a_format_without_a_process_tells_none(line: str) -> None:
    assert logcat.parsed(1, line) == logcat.LogLine(1, TEXT, None)


def test_a_file_that_is_none_and_one_that_is_too_large_are_said_in_a_line(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    large = tmp_path / "large.log"
    with large.open("wb") as file:
        file.truncate(logcat.MOST_BYTES + 1)
    for path, said in (
        (pipe, "a FIFO, not a regular"),
        (large, "268.4 MB"),
        (tmp_path / "no", "read"),
    ):
        with pytest.raises(AuditError, match=said):
            list(logcat.of_file(path))


def test_bytes_that_are_no_text_and_endless_lines_are_read_as_they_come(tmp_path: Path) -> None:
    path = tmp_path / "app.log"
    path.write_bytes(b"\xff\xfe\x00" + b"x" * 100_000 + f"\n{TEXT}\n".encode())
    *_, last = logcat.of_file(path)
    assert last.text == TEXT
