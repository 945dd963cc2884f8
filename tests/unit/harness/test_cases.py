"""Folders, globs and manifests become cases; cases become sessions in a seeded order."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from driftloop.fixtures import awkward
from driftloop.harness.cases import Case, load_cases, sessions
from driftloop.harness.errors import CaseError

LABELS = ("water", "land", "fire", "wood", "metal")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Five images at three depths, one hidden, one in a hidden folder, and a text."""
    root = tmp_path / "photos"
    for name in (
        "b.PNG",
        "a.jpg",
        "notes.txt",
        ".5.jpg",
        "fire/1.jpg",
        "fire/night/2.webp",
        "other/3.gif",
        ".hidden/4.jpg",
    ):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return root


def _named(spec: object, *, skip_bad: bool = False) -> list[tuple[str, str | None]]:
    found = load_cases(str(spec), LABELS, skip_bad=skip_bad)
    return [(case.id, case.label) for case in found.cases]


def test_a_folder_is_read_recursively_sorted_with_labels_from_subfolders(photos: Path) -> None:
    assert _named(photos) == [
        ("a.jpg", None),
        ("b.PNG", None),
        ("fire/1.jpg", "fire"),
        ("fire/night/2.webp", "fire"),
        ("other/3.gif", None),
    ]


def test_a_glob_takes_what_it_matches_and_a_file_is_one_case(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _named(photos / "*" / "*.jpg") == [("fire/1.jpg", "fire")]
    assert _named(photos / "**" / "*.webp") == [("fire/night/2.webp", "fire")]
    assert _named(photos / "?.*") == [("a.jpg", None), ("b.PNG", None)]
    assert _named(photos / "a.jpg") == [("a.jpg", None)]
    monkeypatch.chdir(photos)
    assert len(_named(".")) == 5
    assert _named("fire/*.jpg") == [("1.jpg", None)]
    assert _named("*/*.jpg") == [("fire/1.jpg", "fire")]


def test_a_folder_may_look_like_a_glob_and_a_linked_one_that_loops_is_not_followed(
    photos: Path,
) -> None:
    (photos / "fire" / "again").symlink_to(photos)
    assert len(_named(photos)) == 5
    odd = photos / "photos [2025]"
    odd.mkdir()
    (odd / "a.jpg").write_bytes(b"x")
    assert _named(odd) == [("a.jpg", None)]


def _manifest(folder: Path, text: str, name: str = "cases.csv") -> Path:
    manifest = folder / name
    manifest.write_text(text)
    return manifest


@pytest.mark.parametrize("column", ["image", "path"])
def test_a_csv_manifest_is_relative_to_itself(photos: Path, column: str) -> None:
    manifest = photos.parent / "cases.csv"
    manifest.write_text(
        f'label,{column},note\nfire,photos/a.jpg,"a, b"\n,photos/b.PNG,\n', "utf-8-sig"
    )
    assert _named(manifest) == [("photos/a.jpg", "fire"), ("photos/b.PNG", None)]
    assert load_cases(str(manifest), LABELS).cases[0].path == photos / "a.jpg"


def test_a_header_whose_quotes_do_not_pair_is_refused_by_its_line(photos: Path) -> None:
    manifest = _manifest(photos, 'image,"label\na.jpg,fire\n')
    with pytest.raises(CaseError, match=r"line \d.*save it as comma-separated UTF-8"):
        load_cases(str(manifest), LABELS)


def test_a_jsonl_manifest_is_the_same(photos: Path) -> None:
    rows = [{"image": "a.jpg", "label": " wood "}, {"path": "b.PNG", "label": None}]
    text = "\n".join(map(json.dumps, rows)) + "\n\n"
    manifest = _manifest(photos, text, "cases.jsonl")
    assert _named(manifest) == [("a.jpg", "wood"), ("b.PNG", None)]


def test_the_same_image_twice_gets_distinct_ids(photos: Path) -> None:
    (photos / "a.jpg#2").write_bytes(b"x")
    manifest = _manifest(photos, "image\na.jpg\na.jpg\na.jpg#2\na.jpg\n")
    ids = [name for name, _ in _named(manifest)]
    assert ids == ["a.jpg", "a.jpg#3", "a.jpg#2", "a.jpg#4"]
    assert ids == [name for name, _ in _named(manifest)]


def test_a_bad_line_is_refused_with_its_place_and_how_many_more_or_skipped(photos: Path) -> None:
    manifest = _manifest(photos, "image,label\na.jpg,fire\nb.PNG,wind\nno.jpg,fire\n")
    with pytest.raises(CaseError) as refusal:
        load_cases(str(manifest), LABELS)
    assert refusal.value.kind == "unknown-label"
    assert refusal.value.path.endswith("cases.csv:3")
    assert "water, land, fire, wood, metal" in str(refusal.value)
    assert "1 more refused" in str(refusal.value)
    assert refusal.value.exit_code == 2
    found = load_cases(str(manifest), LABELS, skip_bad=True)
    assert [case.id for case in found.cases] == ["a.jpg"]
    assert [bad.kind for bad in found.refused] == ["unknown-label", "missing"]
    manifest = _manifest(photos, "image,label\nb.PNG,wind\n")
    with pytest.raises(CaseError, match="no-images"):
        load_cases(str(manifest), LABELS, skip_bad=True)


@pytest.mark.parametrize("spec", ["nowhere", "nowhere/*.jpg", "bad\0name.jpg"])
def test_a_spec_that_names_nothing_is_refused(spec: str, tmp_path: Path) -> None:
    with pytest.raises(CaseError):
        load_cases(str(tmp_path / spec), LABELS)


def _cases(count: int) -> list[Case]:
    return [Case(f"{number}.jpg", Path(f"{number}.jpg"), None) for number in range(count)]


def test_sessions_hold_every_case_once_in_a_seeded_order() -> None:
    cases = _cases(12)
    drawn = sessions(cases, 3, seed=4)
    assert [len(session.cases) for session in drawn] == [3, 3, 3, 3]
    assert sorted(case.id for session in drawn for case in session.cases) == sorted(
        case.id for case in cases
    )
    assert drawn == sessions(cases, 3, seed=4)
    assert drawn != sessions(cases, 3, seed=5)


def test_the_last_session_may_be_short_and_says_so() -> None:
    drawn = sessions(_cases(7), 3, seed=0)
    assert [session.short for session in drawn] == [False, False, True]
    assert [(slot.session, slot.position) for slot in drawn[2].slots] == [(2, 0)]


def test_an_unreadable_folder_is_refused(photos: Path, request: pytest.FixtureRequest) -> None:
    if os.geteuid() == 0:
        pytest.skip("root reads every folder")
    (photos / "fire").chmod(0)
    restore: Callable[[], None] = lambda: (photos / "fire").chmod(0o755)  # noqa: E731
    request.addfinalizer(restore)
    with pytest.raises(CaseError, match="unreadable"):
        load_cases(str(photos), LABELS)


def test_the_catalogue_as_one_folder_is_a_run_with_refusals(tmp_path: Path) -> None:
    awkward.write(tmp_path)
    assert len(load_cases(str(tmp_path), LABELS).cases) > 40
