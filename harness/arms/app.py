"""`app`: what the app itself saw and answered, from the lines it wrote (docs/app-observations.md).

Any engine can write them. What a line leaves out is unknown, and never counts as equal.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from pydantic import Field, ValidationError, model_validator

from driftloop.devices import files
from driftloop.devices.hashing import file_sha256
from driftloop.devices.phone import Phone
from driftloop.devices.runner.protocol import PromptId, RunnerFault, Timings, Token, TokenId
from driftloop.harness.arms.base import Prepared, observed
from driftloop.harness.cases import Case
from driftloop.harness.contract import Contract
from driftloop.harness.errors import BadInput, CaseError
from driftloop.harness.jsonl import Record, first_problem
from driftloop.harness.ladder import APP
from driftloop.harness.preprocess import identify_dump, pixels_sha256
from driftloop.harness.preprocess.dump import read_dump
from driftloop.harness.records.inquiry import AppRemarks
from driftloop.harness.records.observation import Conditions, Observation, TotalTime

_MOST_BYTES: Final = 256 * 2**20
_MOST_TEXT: Final = 64 * 1024
"""Characters of one answer: a thousand times the longest that a contract allows."""
_IDENTIFIED: Final = 3
"""Pictures whose recipe is looked for: each takes about a second."""
_OBSERVED: Final = ("grid", "image_tokens", "prompt_ids", "label_logprobs", "text", "timings_ms")
"""Fields that an observation has as the line has them."""
_MODELS: Final = (("text model", "text_model_sha256"), ("mmproj", "mmproj_sha256"))
_UNTOLD: Final = {
    "pixels": "the app's pixels (resize)",
    "prompt_ids": "prompt ids (tokens)",
    "token_ids": "generated ids (decode)",
    "label_logprobs": "label log-probabilities (prefill)",
}


class AppLine(Record):
    """One image, as the app handled it. All but the image and the text may be left out."""

    image: str | None = Field(default=None, max_length=4096)
    """The file's name, or its path below the folder of images."""
    image_sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    """Of the file, in place of its name."""
    text: str = Field(max_length=_MOST_TEXT)
    """The answer, as generated."""
    label: str | None = None
    """As the app reads its answer; left out, the contract's rule reads it."""
    pixels: str | None = None
    """A file beside this one: the square that the model was given, as raw RGB or RGBA bytes or as
    PNG."""
    grid: tuple[int, int] | None = None
    """Tiles as (rows, columns) without the overview; (0, 0) for a single tile."""
    image_tokens: int | None = Field(default=None, ge=0)
    prompt_ids: list[PromptId] | None = None
    """The whole prompt; -1 for each token of the image."""
    token_ids: list[TokenId] | None = None
    """As generated, the end token among them."""
    label_logprobs: dict[str, float] = Field(default_factory=dict)
    """Of each label's first token at the first step, in nats."""
    timings_ms: Timings | TotalTime | None = None
    text_model_sha256: str | None = None
    mmproj_sha256: str | None = None
    versions: dict[str, str] = Field(default_factory=dict)
    """Of the app, its engine and its device, for people."""

    @model_validator(mode="after")
    def _names_an_image(self) -> AppLine:
        if (self.image is None) == (self.image_sha256 is None):
            raise ValueError("name the image by `image` or by `image_sha256`, one of them")
        if self.pixels is not None and not _lies_beside(self.pixels):
            raise ValueError(f"pixels {self.pixels!r} is no path below the folder of this file")
        return self


_NO_LINE: Final = AppLine(image="none", text="")


@dataclass(frozen=True)
class AppAnswers:
    """Everything that a file of lines says of a run's cases."""

    path: Path
    sha256: str
    """Of the file."""
    contract: Contract
    lines: Mapping[str, AppLine]
    """By case id."""
    pixels: Mapping[str, str]
    """Case id -> SHA-256 of the RGB bytes that its line names."""
    sources: Mapping[str, Path]
    """Case id -> the image."""

    def observation(self, image: Prepared) -> Observation:
        """The app's answer to that image; a fault where it wrote no line."""
        line = self.lines.get(image.case_id)
        said = line or _NO_LINE
        answer = {name: getattr(said, name) for name in _OBSERVED}
        answer |= {} if said.label is None else {"label": said.label}
        if said.token_ids is None:
            answer["tokens"] = None
        else:
            # No log-probabilities are known, so nothing may be compared with them.
            answer["tokens"] = [
                Token(id=one, piece="", logprob=math.nan, top=[]) for one in said.token_ids
            ]
        if line is None:
            answer["error"] = RunnerFault(kind="unanswered", detail="the app wrote no line")
        answer["pixels_sha256"] = self.pixels.get(image.case_id)
        answer["stop_reason"] = "eog" if line else "error"
        answer["conditions"] = Conditions()
        return observed((APP, None), self.contract, image, answer)

    def remarks(self, images: Iterable[Prepared], models: Sequence[str]) -> AppRemarks:
        """What the lines show beside the answers.

        `images`: the run's, with the contract's pixels; `models`: the SHA-256 of the text model
        and of the mmproj that the arm above has, empty where it has the checkpoint.
        """
        lines = self.lines.values()
        others = sorted(
            f"{what} {sha256[:12]}, not {own[:12]}"
            for (what, field), own in zip(_MODELS, models, strict=False)
            for sha256 in {getattr(line, field) for line in lines} - {own, None}
        )
        return AppRemarks(
            untold=tuple(
                what
                for name, what in _UNTOLD.items()
                if not all(getattr(line, name) for line in lines)
            ),
            pixels=self._recipe(images),
            models=tuple(others),
        )

    def _recipe(self, images: Iterable[Prepared]) -> str | None:
        """How the app made its pixels, where they are not the contract's."""
        found = []
        for image in images:
            case = image.case_id
            if self.pixels.get(case, image.pixels_sha256) == image.pixels_sha256:
                continue
            dump = self.path.parent / str(self.lines[case].pixels)
            found.append(str(identify_dump(dump, self.sources[case])))
            if len(found) == _IDENTIFIED:
                break
        return max(found, key=found.count) if found else None


def _lies_beside(name: str) -> bool:
    path = PurePosixPath(name)
    return bool(name) and not path.is_absolute() and ".." not in path.parts


def read(path: Path, cases: Sequence[Case], contract: Contract) -> AppAnswers:
    """The lines of `path`, each with its case.

    Raises:
        BadInput: no regular file, too large, a line that is torn, unknown or doubled, names an
            image that is none of `cases`, or pixels that are no square; says which.
    """
    by_name = _by_name(cases)
    by_sha256: dict[str, list[str]] = {}
    found: dict[str, AppLine] = {}
    places: dict[str, int] = {}
    for number, line in _lines(path):
        if line.image_sha256 is not None and not by_sha256:
            for case in cases:
                by_sha256.setdefault(file_sha256(case.path), []).append(case.id)
        named = line.image_sha256 if line.image is None else line.image
        ids = (by_sha256 if line.image is None else by_name).get(str(named), [])
        if not ids:
            raise BadInput(
                f"{path}, line {number}: {named!r} is none of the run's {len(cases)} images; "
                "give the run the images that the app was given"
            )
        if ids[0] in places:
            raise BadInput(
                f"{path}, line {number}: {named!r} is on line {places[ids[0]]} too; "
                "keep one line per image"
            )
        for case_id in ids:
            found[case_id], places[case_id] = line, number
    if not found:
        raise BadInput(f"{path} holds no line; did the app's run come to an end?")
    try:
        pixels = {
            case_id: pixels_sha256(read_dump(path.parent / line.pixels))
            for case_id, line in found.items()
            if line.pixels is not None
        }
    except CaseError as error:
        raise BadInput(f"{path}: {error}") from error
    sources = {case.id: case.path for case in cases}
    return AppAnswers(path, file_sha256(path), contract, found, pixels, sources)


def pulled(phone: Phone, remote: str, folder: Path) -> Path:
    """Copies the lines at `remote` on that phone, and the dumps they name, into `folder`.

    Raises:
        BadInput: there is no such file, or a line that cannot be used.
        DeviceError: the phone is lost.
    """
    local = folder / PurePosixPath(remote).name
    _pull(phone, remote, local)
    for _, line in _lines(local):
        if line.pixels is not None:
            _pull(phone, f"{PurePosixPath(remote).parent}/{line.pixels}", folder / line.pixels)
    return local


def _pull(phone: Phone, remote: str, local: Path) -> None:
    if not phone.patiently(lambda: phone.exists(remote)):
        raise BadInput(f"--app-pull: {phone.serial} has no {remote} that a shell may read")
    local.parent.mkdir(parents=True, exist_ok=True)
    phone.patiently(lambda: phone.pull(remote, local))


def _by_name(cases: Sequence[Case]) -> dict[str, list[str]]:
    """Case ids by every name of their image: id, path, and file name where that is unique."""
    names: dict[str, list[str]] = {}
    for case in cases:
        plain = case.id.partition("#")[0]
        for name in {plain, case.path.name, str(case.path)}:
            names.setdefault(name, []).append(case.id)
    paths = {case.id: case.path for case in cases}
    return {name: ids for name, ids in names.items() if len({paths[one] for one in ids}) == 1}


def _lines(path: Path) -> Iterator[tuple[int, AppLine]]:
    try:
        with files.opened(path, _MOST_BYTES) as file:
            for number, raw in enumerate(file, start=1):
                if raw.strip():
                    yield number, _line(path, number, raw)
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}; name the app's JSON lines") from error


def _line(path: Path, number: int, raw: bytes) -> AppLine:
    try:
        return AppLine.model_validate_json(raw)
    except ValidationError as error:
        torn = "" if raw.rstrip().endswith(b"}") else "; the line is torn: pull the file again"
        raise BadInput(f"{path}, line {number}: {first_problem(error)}{torn}") from error
