"""`driftloop app run` on a virtual phone: a program of the phone stands where an app would.

A virtual phone has no `am`. `--start` is the way for whatever is no Android app; all but the
command is the same.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from driftloop.devices.hashing import file_sha256
from driftloop.devices.phone import REMOTE_ROOT, Phone
from driftloop.devices.virtual import VirtualPhone
from driftloop.fixtures import textures
from driftloop.harness.errors import AppRunFailed, BadInput
from driftloop.harness.probe import App, ask

IMAGES = 6

ANSWERING = r"""
lines="$DRIFTLOOP_OUT/observations.jsonl"; touch "$lines"
for image in "$DRIFTLOOP_IMAGES"/*; do
  name=${image##*/}; sha256=${name%.*}
  grep -q "$sha256" "$lines" && continue
  printf '{"image_sha256": "%s", "text": " %s"}\n' "$sha256" "$$" >>"$lines"
  CHANGE
done
"""
"""An app's loop: the images it has not lines_of yet, one line each, its process as the answer."""


def app(change: str = ":") -> App:
    return App("com.example.app", start=ANSWERING.replace("CHANGE", change))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("images")
    textures.save(folder, IMAGES, seed=29)
    return sorted(folder.glob("*.png"))


def quiet(done: int, total: int) -> None:
    assert done <= total


def lines_of(lines: Path) -> dict[str, str]:
    rows = [json.loads(line) for line in lines.read_text().splitlines()]
    found = {row["image_sha256"]: row["text"] for row in rows}
    assert len(found) == len(rows), "an image was lines_of twice"
    return found


def test_every_image_is_told_once_and_nothing_is_left_on_the_phone(
    phone: Phone, images: list[Path], tmp_path: Path
) -> None:
    lines = ask(phone, app(), images, tmp_path / "out", quiet)
    assert lines_of(lines).keys() == {file_sha256(image) for image in images}
    assert phone.shell(f"ls {REMOTE_ROOT}/app").stdout == ""


def test_an_app_that_dies_is_started_anew_by_the_same_call_and_goes_on(
    phone: Phone, images: list[Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with pytest.raises(AppRunFailed, match=f"1 of {IMAGES} .*it said: out of memory"):
        ask(phone, app("echo out of memory; exit 1"), images, out, quiet)
    first = lines_of(out / "observations.jsonl")
    assert len(first) == 1
    both = lines_of(ask(phone, app(), images, out, quiet))
    assert len(both) == IMAGES
    assert first.items() <= both.items()


def test_a_line_that_the_apps_death_tore_is_no_other_fault(
    phone: Phone, images: list[Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with pytest.raises(AppRunFailed, match=f"1 of {IMAGES} "):
        ask(phone, app("""printf '{"image_sha' >>"$lines"; exit 1"""), images, out, quiet)
    assert len((out / "observations.jsonl").read_text().splitlines()) == 2


def test_a_lost_connection_neither_stops_the_app_nor_starts_it_twice(
    x86_phone: VirtualPhone, phone: Phone, images: list[Path], tmp_path: Path
) -> None:
    def lose() -> None:
        for _ in range(3):
            time.sleep(0.7)
            os.kill(x86_phone.adbd_pid(), signal.SIGKILL)

    losing = threading.Thread(target=lose)
    losing.start()
    lines = ask(phone, app("sleep 1"), images, tmp_path / "out", quiet)
    losing.join()
    answers = lines_of(lines)
    assert len(answers) == IMAGES
    assert len(set(answers.values())) == 1, "it was started more than once"


def test_without_am_the_phone_s_own_words_are_told(
    phone: Phone, images: list[Path], tmp_path: Path
) -> None:
    with pytest.raises(AppRunFailed, match=r"0 of 6 .*am: .*not found"):
        ask(phone, App("com.example.app"), images, tmp_path / "out", quiet)


def test_a_finished_run_is_not_overwritten(
    phone: Phone, images: list[Path], tmp_path: Path
) -> None:
    ask(phone, app(), images, tmp_path / "out", quiet)
    with pytest.raises(BadInput, match="finished run"):
        ask(phone, app(), images, tmp_path / "out", quiet)


def test_a_package_cannot_smuggle_a_path() -> None:
    with pytest.raises(BadInput, match="no package"):
        App("../../data")
