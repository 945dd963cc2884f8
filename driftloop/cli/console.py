"""Where output goes: answers to stdout, progress and remarks to stderr."""

from __future__ import annotations

import json
import logging
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from driftloop.devices.visible import visible, visible_lines
from driftloop.harness.errors import BadInput
from driftloop.harness.progress import Lines, ProgressBoard

if TYPE_CHECKING:
    from rich.console import RenderableType as View
    from rich.table import Table
    from rich.text import Text

_CONTROLS = {
    code: f"\\u{code:04x}"
    for first, last in ((0x7F, 0x9F), (0x200B, 0x200F), (0x2028, 0x202E), (0x2060, 0x206F))
    for code in range(first, last + 1)
}
"""Control characters and direction overrides that JSON leaves as they are."""
_WHOLE_RUN_S = 1e9
"""Longer than any run: the period over which rich averages a bar's speed."""


class _Stderr(logging.Handler):
    """Looks stderr up at each line, since progress bars replace it while they are shown."""

    def emit(self, record: logging.LogRecord) -> None:
        sys.stderr.write(f"{self.format(record)}\n")


_LOG = logging.getLogger("driftloop")
_LOG.setLevel(logging.DEBUG)
_STDERR = _Stderr(logging.INFO)
_LOG.addHandler(_STDERR)


def configure(level: int, log_file: Path | None = None) -> None:
    """Write lines of at least `level` (of `logging`) to stderr, and every line to `log_file`.

    Raises:
        BadInput: the file cannot be written.
    """
    _STDERR.setLevel(level)
    if log_file is None:
        return
    try:
        kept = logging.FileHandler(log_file, encoding="utf-8")
    except OSError as error:
        raise BadInput(f"--log-file {log_file}: {error.strerror}") from error
    kept.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    _LOG.addHandler(kept)


def say(line: str) -> None:
    """Write one remark to stderr."""
    _LOG.info("%s", visible(line))


def fail(line: str) -> None:
    """Write the line that ends a command, which `--quiet` does not hide."""
    _LOG.error("driftloop: %s", visible(line))


def show(
    as_json: bool, document: Callable[[], object], view: Callable[[], View | Sequence[View]]
) -> None:
    """Print a command's answer on stdout: `document` as JSON, or `view` for people. Only the one
    that is wanted is made."""
    if as_json:
        show_json(document())
    else:
        show_view(view())


def show_json(document: object) -> None:
    """Print one JSON document on stdout; numbers that JSON does not have as null."""
    ascii_only = sys.stdout.encoding.lower().replace("-", "") != "utf8"
    text = json.dumps(_finite(document), indent=2, ensure_ascii=ascii_only, allow_nan=False)
    sys.stdout.write(text.translate(_CONTROLS) + "\n")


def _finite(document: object) -> object:
    if isinstance(document, dict):
        return {key: _finite(value) for key, value in document.items()}
    if isinstance(document, list | tuple):
        return [_finite(value) for value in document]
    return None if isinstance(document, float) and not math.isfinite(document) else document


def show_view(view: View | Sequence[View]) -> None:
    """Print one view, or several, on stdout. Plain text is neither wrapped nor read as markup."""
    from rich.console import Console

    console = Console(highlight=False)
    for part in view if isinstance(view, list | tuple) else [view]:
        is_text = isinstance(part, str)
        shown = visible_lines(part) if isinstance(part, str) else part
        console.print(shown, soft_wrap=is_text, markup=not is_text)


def table(titles: Sequence[str], rows: Iterable[Sequence[str | Text]]) -> Table:
    """A table without a frame, whose cells are not read as markup.

    A title that begins with `>` heads a column of numbers. There is no header without titles.
    """
    from rich.table import Table
    from rich.text import Text

    made = Table(box=None, pad_edge=False, show_header=any(titles))
    for title in titles:
        made.add_column(
            title.removeprefix(">"),
            justify="right" if title.startswith(">") else "left",
            overflow="fold",
        )
    for row in rows:
        made.add_row(
            *(Text(visible_lines(cell)) if isinstance(cell, str) else cell for cell in row)
        )
    return made


@contextmanager
def progress_board() -> Iterator[ProgressBoard]:
    """Bars with the time left on a terminal; elsewhere a line at every quarter of each bar, and
    after a long silence a line that names what is running."""
    if not sys.stderr.isatty() or _STDERR.level > logging.INFO:
        with Lines(say) as lines:
            yield ProgressBoard(lines.show, lines.say)
        return
    from rich import progress
    from rich.console import Console

    columns = (
        progress.TextColumn("{task.description:<26}", markup=False),
        progress.BarColumn(bar_width=28),
        progress.MofNCompleteColumn(),
        progress.TimeElapsedColumn(),
        progress.TextColumn("left"),
        progress.TimeRemainingColumn(compact=True),
    )
    console = Console(stderr=True, highlight=False)
    # Arms take turns, so an arm's speed is its average over the whole run, pauses included.
    with progress.Progress(*columns, console=console, speed_estimate_period=_WHOLE_RUN_S) as bars:
        tasks: dict[str, progress.TaskID] = {}

        def show(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(visible(name), total=total)
            bars.update(tasks[name], completed=done, total=total)

        yield ProgressBoard(show, say)
