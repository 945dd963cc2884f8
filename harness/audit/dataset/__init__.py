"""Training images and texts as they lie on disk. Every entry is read; pixels on a sample."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from driftloop.devices.hashing import file_sha256
from driftloop.harness import cases
from driftloop.harness.audit import prompt_parts, values
from driftloop.harness.audit.checkpoint import Tokens
from driftloop.harness.audit.dataset import pixels, records
from driftloop.harness.audit.dataset.pixels import Pair
from driftloop.harness.audit.dataset.records import Record, Records
from driftloop.harness.audit.findings import Finding, tallied
from driftloop.harness.contract import Contract
from driftloop.harness.images import IMAGE_SUFFIXES
from driftloop.harness.preprocess import pixels_sha256
from driftloop.harness.progress import Advance

_SIDE: Final = "dataset"
_SAMPLE: Final = 16
"""Images whose pixels are searched, drawn with seed 0."""
_LABELS: Final = 12
"""Labels of a dataset that are shown."""
_LABEL_IMAGE: Final = re.compile(
    r"(?:label|labell?ed|annotat\w*)_?(?:image_|img_)?"
    r"(?:at|on|size|resolution|width|pixels|px|sha256|hash|image|source)(?:_sha256)?$"
)
"""A key of an entry that says which picture was labelled."""


def findings(
    path: Path,
    contract: Contract,
    advance: Advance,
    sources: Path | None = None,
    tokens: Tokens | None = None,
) -> Iterator[Finding]:
    """What the dataset at `path` says; `sources` is a folder with the images it was made from. With
    `tokens`, of the checkpoint, `<image>` is the image. Raises as `records.read`."""
    found = records.read(path, contract.answer.labels)
    root, known = str(found.root), contract.answer.labels
    said = (one for record in found.records for one in _texts(record, contract, tokens))
    yield from tallied(said, str(found.root / found.kind.removeprefix("table ")))
    answers = {record.target for record in found.records if record.target is not None}
    labels = {prompt_parts.read_target(one, known).label or one.strip() for one in answers}
    if outside := sorted(labels - set(known)):
        note = f"{len(outside)} are no labels of the contract, {outside[0]!r} first"
        yield Finding("labels", _SIDE, tuple(sorted(labels))[:_LABELS], root, note)
    elif labels:
        absent = ", ".join(label for label in known if label not in labels)
        yield Finding("labels", _SIDE, known, root, f"no example of {absent}" if absent else "")
    yield from _sizes(found, contract)
    drawn = cases.drawn(found.records, _SAMPLE, seed=0)
    sample = [(one, image) for one in drawn if (image := one.decoded) is not None]
    pairs = [
        Pair(image, source)
        for record, image in sample
        if (source := _source_of(record, found.root, sources)) is not None
    ]
    searched = list(pixels.findings(pairs, _SIDE, root, contract, advance)) if pairs else []
    yield from searched
    seen = {finding.aspect for finding in searched if finding.value is not None}
    if found.pixels is not None:
        for aspect, field in pixels.ASPECTS.items():
            if aspect not in seen:
                value = getattr(found.pixels, field)
                yield Finding(aspect, _SIDE, value, root, "as the manifest says")
    elif not pairs:
        yield from pixels.padding_by_looks([image for _, image in sample], root)
        note = "only the source images show how the pixels were made; give --sources"
        yield Finding("resize", _SIDE, None, root, note)


def _texts(record: Record, contract: Contract, tokens: Tokens | None) -> Iterator[Finding]:
    where, target = record.where, record.target
    if record.prompt is not None:
        has_token = tokens is not None or record.image_is_structured
        for one in prompt_parts.findings(record.prompt, _SIDE, where, contract, has_token):
            if record.is_conversation and one.aspect == "chat_template":
                note = "a conversation; --collator shows which template it gets"
                one = replace(one, value=None, note=note)
            yield one
    if target is not None:
        read = prompt_parts.read_target(target, contract.answer.labels)
        yield Finding("output", _SIDE, read.form, where, f"for example {target!r}")
        if read.ends:
            yield Finding("end_token", _SIDE, True, where)
    if record.max_tokens is not None:
        yield Finding("max_tokens", _SIDE, record.max_tokens, where)
    yield Finding("images_per_prompt", _SIDE, record.images, where)
    for key, value in record.fields.items():
        same = _is_seen(value, record, contract) if _LABEL_IMAGE.match(key.lower()) else None
        if same is not None:
            said = "as the model sees it" if same else "another picture"
            yield Finding("label_image", _SIDE, said, where, f"{key} is {value!r}")
            break


def _is_seen(value: object, record: Record, contract: Contract) -> bool | None:
    """Whether the picture that was labelled, known by hash, name or size, is the model's."""
    if isinstance(value, str) and re.fullmatch(r"[0-9a-f]{64}", value):
        if value == record.fields.get("pixels_sha256"):
            return True
        file = record.seen(lambda image: getattr(image, "filename", ""))
        image = record.decoded
        is_file = bool(file) and file_sha256(Path(str(file))) == value
        return is_file or (image is not None and pixels_sha256(image) == value)
    if isinstance(value, str) and Path(value).suffix.lower() in IMAGE_SUFFIXES:
        return value == record.name
    return values.is_square(value, contract.pixels.size)


def _sizes(found: Records, contract: Contract) -> Iterator[Finding]:
    """The commonest size that is not the contract's."""
    seen = (record.seen(lambda image: image.size) for record in found.records)
    sizes = Counter(size for size in seen if size is not None)
    where = f"{found.root} ({found.kind}), {sizes.total()} of {len(found.records)} images"
    side = contract.pixels.size
    others = [item for item in sizes.most_common() if item[0] != (side, side)]
    if not others:
        note = "" if sizes else "no entry names an image that can be opened"
        yield Finding("image_size", _SIDE, side if sizes else None, where, note)
        return
    (width, height), count = others[0]
    shape = f"{width}x{height}"
    note = f"{count} of {sizes.total()} are {shape}; different sizes: {len(sizes)}"
    yield Finding("image_size", _SIDE, width if width == height else shape, where, note)
    if width != height and max(width, height) == side:
        yield Finding("padding", _SIDE, "none", where, "the pictures are not square")


def _source_of(record: Record, root: Path, sources: Path | None) -> Path | None:
    """The image of the source's name below `sources`, whatever its suffix, and the very one where
    the dataset knows its hash; else as the dataset itself says."""
    name, sha256 = record.source or record.name, record.fields.get("source_sha256")
    bases = [] if sources is None else [sources / name, sources / Path(name).name]
    alike = [path for base in bases for path in sorted(base.parent.glob(f"{base.stem}.*"))]
    own = [root / record.source] if record.source not in (None, record.name) else []
    images = (one for one in (*bases, *alike, *own) if one.suffix.lower() in IMAGE_SUFFIXES)
    files = (one for one in images if one.is_file())
    return next((one for one in files if sha256 in (None, file_sha256(one))), None)
