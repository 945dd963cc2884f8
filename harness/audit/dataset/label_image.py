"""Which picture was labelled, as an entry of a dataset tells it: by size, by hash, by name."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from devices.hashing import file_sha256
from harness.audit.dataset import records
from harness.audit.dataset.records import Record
from harness.audit.findings import Finding
from harness.contract import Contract
from harness.images import IMAGE_SUFFIXES
from harness.preprocess import pixels_sha256

_LABEL_IMAGE: Final = re.compile(
    r"(?:label|labell?ed|annotat\w*)_?(?:image_|img_)?"
    r"(?:at|on|size|resolution|width|pixels|px|sha256|hash|image|source)(?:_sha256)?$"
)


def finding(record: Record, contract: Contract) -> Finding | None:
    """What an entry says about the picture that was labelled."""
    for key, value in record.fields.items():
        if not _LABEL_IMAGE.match(key.lower()) or value in (None, ""):
            continue
        same = _is_the_square(key, value, record, contract)
        if same is not None:
            found = "as the model sees it" if same else "another picture"
            return Finding("label_image", "dataset", found, record.where, f"{key} is {value!r}")
    return None


def _is_the_square(key: str, value: object, record: Record, contract: Contract) -> bool | None:
    size = contract.pixels.size
    if isinstance(value, int | float):
        return int(value) == size
    if isinstance(value, list) and value and all(isinstance(side, int) for side in value):
        return set(value) == {size}
    if not isinstance(value, str):
        return None
    if re.fullmatch(r"[0-9a-f]{64}", value):
        return value in _hashes(record)
    if numbers := re.fullmatch(r"\s*(\d+)\s*(?:[x*, ]\s*(\d+))?\s*(?:px|pixels)?\s*", value):
        return {int(side) for side in numbers.groups() if side} == {size}
    lowered = value.lower()
    if any(word in lowered for word in ("full", "original", "native", "high-res", "highres")):
        return False
    if Path(value).suffix.lower() in IMAGE_SUFFIXES and value != record.name:
        return False
    return True if value == record.name else None


def _hashes(record: Record) -> Iterator[str]:
    image = records.decoded(record)
    if image is not None:
        yield pixels_sha256(image)
    if record.open is not None:
        with record.open() as opened:
            name = getattr(opened, "filename", "")
        if name:
            yield file_sha256(Path(name))
