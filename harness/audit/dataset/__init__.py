"""Training images and texts as they lie on disk. Every entry is read; pixels on a sample."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from driftloop.devices.hashing import file_sha256
from driftloop.harness import dataset as datasets
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
    """What the dataset at `path` says.

    `sources` is a folder with the images it was made from. `tokens`, of the checkpoint, tell what
    its tokenizer takes for the image, and how it writes conversations.

    Raises:
        DatasetError: no dataset is there, or it is damaged.
        ArmUnavailable: a package that its form needs is missing.
    """
    if is_prepared(path):
        yield from _prepared(path, contract, advance, sources)
        return
    found = records.read(path, contract.answer.labels)
    root, known = str(found.root), contract.answer.labels
    said = (one for record in found.records for one in _texts(record, contract, tokens))
    yield from tallied(said, str(found.root / found.kind.removeprefix("table ")))
    answers = {record.target for record in found.records if record.target is not None}
    labels = {prompt_parts.read_target(one, known).label or one.strip() for one in answers}
    yield from _label_set(labels, contract, root)
    yield from _sizes(found, contract)
    sample = [(one, image) for one in _sample(found.records) if (image := one.decoded) is not None]
    pairs = [
        Pair(record.name, image, source)
        for record, image in sample
        if (source := _source_of(record, found.root, sources)) is not None
    ]
    if pairs:
        yield from pixels.findings(pairs, _SIDE, root, contract, advance)
    else:
        yield from pixels.padding_by_looks([image for _, image in sample], root)
        note = "how the pixels were made shows only beside the source images; give --sources"
        yield Finding("resize", _SIDE, None, root, note)


def is_prepared(path: Path) -> bool:
    """True for a folder that `driftloop dataset prepare` made."""
    manifest = path / datasets.MANIFEST_NAME
    if not manifest.is_file():
        return False
    with manifest.open(encoding="utf-8", errors="replace") as lines:
        return '"pixels_sha256"' in lines.readline()


def _prepared(
    path: Path, contract: Contract, advance: Advance, sources: Path | None
) -> Iterator[Finding]:
    loaded = datasets.load(path)
    manifest = str(path / datasets.MANIFEST_NAME)
    where = f"{manifest}, {len(loaded.entries)} of {len(loaded.entries)} entries"
    stated = loaded.pixels.spelled_out
    yield Finding("image_size", _SIDE, stated.size, where)
    pairs = [
        Pair(entry.image, entry.square(), source)
        for entry in _sample(loaded.entries)
        if (source := _source(sources, entry.source, entry.source_sha256)) is not None
    ]
    searched = list(pixels.findings(pairs, _SIDE, manifest, contract, advance)) if pairs else []
    yield from searched
    seen = {finding.aspect for finding in searched if finding.value is not None}
    for aspect, field in pixels.ASPECTS.items():
        if aspect not in seen:
            yield Finding(aspect, _SIDE, getattr(stated, field), where, "as the manifest says")
    labels = {entry.label for entry in loaded.entries if entry.label is not None}
    yield from _label_set(labels, contract, where)
    yield Finding("images_per_prompt", _SIDE, 1, where)
    labelled = [entry for entry in loaded.entries if entry.label_image_sha256 is not None]
    other = [entry for entry in labelled if entry.label_image_sha256 != entry.pixels_sha256]
    value: str | None = "another picture" if other else "as the model sees it"
    note = f"{len(other)} of {len(labelled)}, {other[0].source} first" if other else ""
    if not labelled:
        value, note = None, "the manifest does not say which pixels the labels were made on"
    yield Finding("label_image", _SIDE, value, where, note)


def _texts(record: Record, contract: Contract, tokens: Tokens | None) -> Iterator[Finding]:
    where, target = record.where, record.target
    if record.prompt is not None:
        known = tokens.image_texts if tokens else ()
        if record.image_is_structured:
            known = (prompt_parts.IMAGE_TOKEN,)
        written = tokens.written(record.messages) if tokens and record.messages else None
        text = written or record.prompt
        for one in prompt_parts.findings(text, _SIDE, where, contract, known):
            if record.messages and not written and one.aspect == "chat_template":
                note = "a conversation; --checkpoint or --collator shows which template it gets"
                one = replace(one, value=None, note=note)
            yield one
    if target is not None:
        read = prompt_parts.read_target(target, contract.answer.labels)
        yield Finding("output", _SIDE, read.form, where, f"for example {target!r}")
        if record.is_one_text:
            note = "" if read.ends else "no end token is spelled out: the collator decides"
            yield Finding("end_token", _SIDE, read.ends or None, where, note)
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
        file = record.seen(lambda image: getattr(image, "filename", ""))
        image = record.decoded
        is_file = bool(file) and file_sha256(Path(str(file))) == value
        return is_file or (image is not None and pixels_sha256(image) == value)
    if isinstance(value, str) and Path(value).suffix.lower() in IMAGE_SUFFIXES:
        return value == record.name
    return values.is_square(value, contract.pixels.size)


def _label_set(found: set[str], contract: Contract, where: str) -> Iterator[Finding]:
    known = contract.answer.labels
    if outside := sorted(found - set(known)):
        note = f"{len(outside)} are no labels of the contract, {outside[0]!r} first"
        yield Finding("labels", _SIDE, tuple(sorted(found))[:_LABELS], where, note)
    elif found:
        absent = ", ".join(label for label in known if label not in found)
        yield Finding("labels", _SIDE, known, where, f"no example of {absent}" if absent else "")


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
        yield Finding("padding", _SIDE, "none", where, "the pictures fill no square")


def _source_of(record: Record, root: Path, sources: Path | None) -> Path | None:
    """Of that name below `sources`; else as the dataset itself says."""
    found = _source(sources, record.source or record.name)
    if found is None and record.source not in (None, record.name):
        own = root / str(record.source)
        return own if own.is_file() else None
    return found


def _source(folder: Path | None, name: str, sha256: str | None = None) -> Path | None:
    """The image called `name` below `folder`, whatever its suffix; the very one where `sha256`."""
    if folder is None:
        return None
    bases = (folder / name, folder / Path(name).name)
    alike = (path for base in bases for path in sorted(base.parent.glob(f"{base.stem}.*")))
    images = (one for one in (*bases, *alike) if one.suffix.lower() in IMAGE_SUFFIXES)
    files = (one for one in images if one.is_file())
    return next((one for one in files if sha256 in (None, file_sha256(one))), None)


def _sample(items: Sequence[Any]) -> list[Any]:
    if len(items) <= _SAMPLE:
        return list(items)
    return random.Random(0).sample(list(items), _SAMPLE)  # noqa: S311 (a sample, not a secret)
