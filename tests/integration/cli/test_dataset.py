"""`driftloop dataset` as users call it: the path of the app's guide, and bad input in one line each."""

# ruff: noqa: E501  (the table is read one case a line)

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from driftloop.fixtures import textures
from driftloop.harness import dataset as data
from tests.integration.cli.conftest import Driftloop
from tests.integration.harness.dataset.conftest import Reply, ScriptedServer
from tests.little_dataset import content

USAGE, INFRA = 2, 4
KEY = "sk-never-shown"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, driftloop: Driftloop) -> Path:
    """Six textures, one of them labelled, and their dataset."""
    folder = tmp_path_factory.mktemp("prepared")
    for number, item in enumerate(textures.textures(6, seed=41)):
        item.image.save(folder / f"{number}.png")
    (folder / "labels.csv").write_text(
        "image,label\n0.png,water\n" + "".join(f"{n}.png,\n" for n in range(1, 6))
    )
    document = driftloop.json("dataset", "prepare", folder / "labels.csv", folder / "dataset")
    assert document["images"] == 6
    return folder


@pytest.fixture
def folder(prepared: Path, tmp_path: Path) -> Path:
    """A copy of `prepared`."""
    return Path(shutil.copytree(prepared, tmp_path / "work"))


@pytest.fixture
def endpoint() -> Iterator[ScriptedServer]:
    """A server for labels."""
    server = ScriptedServer()
    yield server
    server.close()


def _text(folder: Path, name: str, content: str) -> Path:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(content)
    return path


def _with_image(folder: Path, name: str) -> Path:
    (folder / name).parent.mkdir(exist_ok=True, parents=True)
    Image.new("RGB", (30, 20), "red").save(folder / name)
    return folder / name


def _two_labels(folder: Path) -> Path:
    _with_image(folder, "two/fire/a.png")
    _with_image(folder, "two/wood/b.png")
    return folder / "two"


def _import(folder: Path, content: str, name: str = "more.csv") -> list[object]:
    return ["import-labels", folder / "dataset", _text(folder, name, content)]


def _label(folder: Path, url: str) -> list[object]:
    return ["label", folder / "dataset", "--endpoint", url, "--model", "m", "--retries", "1"]


def _answered(folder: Path, server: ScriptedServer, status: int) -> list[object]:
    """An endpoint that answers with that status, the key, and no chat completion."""
    said = json.dumps({"error": {"message": f"no, Bearer {KEY}"}})
    server.script = lambda _: Reply(status, said)
    return _label(folder, server.url)


Case = Callable[[Path, ScriptedServer], list[object]]
"""Takes the work folder and the endpoint."""
ARGUMENTS: dict[str, tuple[int, str, Case]] = {
    "no sources": (USAGE, "missing", lambda t, _: ["prepare", t / "none", t / "dataset"]),
    "empty folder": (USAGE, "no-images", lambda t, _: ["prepare", _text(t, "empty/x.txt", "").parent, t / "dataset"]),
    "not an image": (USAGE, "photo.jpg", lambda t, _: ["prepare", _text(t, "bad/photo.jpg", "no picture").parent, t / "dataset"]),
    "manifest of wrong columns": (USAGE, "missing-column", lambda t, _: ["prepare", _text(t, "m.csv", "a,b\n1,2\n"), t / "dataset"]),
    "manifest with an unknown label": (USAGE, "'air' is no label", lambda t, _: ["prepare", _text(t, "m.csv", "image,label\n0.png,air\n"), t / "dataset"]),
    "manifest with a missing file": (USAGE, "no such file", lambda t, _: ["prepare", _text(t, "m.csv", "image\nnone.png\n"), t / "dataset"]),
    "the same pixels under two labels": (USAGE, "wood/b.png is 'wood'", lambda t, _: ["prepare", _two_labels(t), t / "dataset"]),
    "unknown recipe": (USAGE, "no recipe 'cubist'", lambda t, _: ["prepare", t / "0.png", t / "dataset", "--recipe", "cubist"]),
    "unknown contract": (USAGE, "built in are", lambda t, _: ["prepare", t / "0.png", t / "dataset", "--contract", "none"]),
    "dataset is a file": (USAGE, "cannot be made", lambda t, _: ["prepare", t / "1.png", t / "0.png"]),
    "import of wrong columns": (USAGE, "no column image and label", lambda t, _: _import(t, "name,tag\n1,fire\n")),
    "import of an unknown label": (USAGE, "'air' is no label", lambda t, _: _import(t, "image,label\n1.png,fire\n2.png,air\n")),
    "import of an unknown image": (USAGE, "no image '9.png'", lambda t, _: _import(t, "image,label\n1.png,fire\n9.png,fire\n")),
    "import of no JSON": (USAGE, "more.jsonl:1: not JSON", lambda t, _: _import(t, "image,label\n", "more.jsonl")),
    "import of a missing file": (USAGE, "cannot be read", lambda t, _: ["import-labels", t / "dataset", t / "none.csv"]),
    "import into no dataset": (USAGE, "no such folder", lambda t, _: ["import-labels", t / "none", t / "labels.csv"]),
    "label no dataset": (USAGE, "no prepared dataset", lambda t, server: ["label", t, "--endpoint", server.url, "--model", "m"]),
    "endpoint that is no address": (USAGE, "no http(s) address", lambda t, _: _label(t, "localhost")),
    "endpoint that is not there": (INFRA, "cannot be reached", lambda t, _: _label(t, "http://127.0.0.1:9/v1")),
    "401": (USAGE, "DRIFTLOOP_API_KEY", lambda t, server: _answered(t, server, 401)),
    "404": (USAGE, "check --model", lambda t, server: _answered(t, server, 404)),
    "429 for ever": (INFRA, "429", lambda t, server: _answered(t, server, 429)),
    "500 for ever": (INFRA, "500", lambda t, server: _answered(t, server, 500)),
    "malformed answers": (INFRA, "no chat completion", lambda t, server: _answered(t, server, 200)),
    "export of no dataset": (USAGE, "no prepared dataset", lambda t, _: ["export", t, t / "out.jsonl"]),
    "export to a folder that is there": (USAGE, "exists", lambda t, _: ["export", t / "dataset", t, "--format", "hf"]),
}  # fmt: skip


@pytest.mark.parametrize("name", ARGUMENTS)
def test_bad_input_is_refused_in_one_line_and_loses_nothing(
    name: str,
    folder: Path,
    endpoint: ScriptedServer,
    driftloop: Driftloop,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DRIFTLOOP_API_KEY", KEY)
    before = content(folder / "dataset")
    status, fragment, arguments = ARGUMENTS[name]
    done = driftloop.ok("dataset", *arguments(folder, endpoint), cwd=folder, status=status)
    assert fragment in done.stderr
    assert KEY not in done.stderr
    [line] = [line for line in done.stderr.splitlines() if line.startswith("driftloop:")]
    assert len(line) < 500
    after = content(folder / "dataset")
    assert {path: after.get(path) for path in before} == before


def test_one_class_only_is_prepared_with_a_warning(folder: Path, driftloop: Driftloop) -> None:
    (folder / "one/fire").mkdir(parents=True)
    for seed in range(3):
        textures.texture("fire", seed).image.save(folder / f"one/fire/{seed}.png")
    done = driftloop.ok("dataset", "prepare", folder / "one", folder / "out")
    assert "every label is fire" in done.stderr
    assert [line.split() for line in done.stdout.splitlines()][3] == ["fire", "2", "1", "3"]


def test_bad_files_may_be_left_out(folder: Path, driftloop: Driftloop) -> None:
    _text(folder, "bad/photo.jpg", "no picture")
    _with_image(folder, "bad/good.png")
    done = driftloop.ok("dataset", "prepare", folder / "bad", folder / "out", "--skip-bad")
    assert "left out: " in done.stderr
    assert "photo.jpg: not-an-image" in done.stderr
    assert len(data.load(folder / "out").entries) == 1


def test_labels_are_imported_and_records_exported(folder: Path, driftloop: Driftloop) -> None:
    table = _text(folder, "more.csv", "image,label\n1.png,land\n2.png,fire\n")
    balance = driftloop.json("dataset", "import-labels", folder / "dataset", table)["balance"]
    counts = {row["label"]: row["train"] + row["held_out"] for row in balance}
    assert counts == {"water": 1, "land": 1, "fire": 1, "wood": 0, "metal": 0, None: 3}
    done = driftloop("dataset", "export", folder / "dataset", folder / "out.jsonl")
    assert "wrote 3 records" in done.stderr
    assert "3 images have no label" in done.stderr
    record = json.loads((folder / "out.jsonl").read_text().splitlines()[0])
    assert record["max_tokens"] == 32
    square = data.load(folder / "dataset").labelled[0].path
    assert (folder / record["image"]).samefile(square)
