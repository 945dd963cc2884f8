"""The training images and texts as they lie on disk. Every entry is read; pixels on a sample."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from devices.hashing import file_sha256
from harness import dataset as datasets
from harness.audit import prompt_parts, targets
from harness.audit.dataset import label_image, looks, pixels, records
from harness.audit.dataset.records import Record, Records
from harness.audit.findings import Finding, Value
from harness.audit.tally import Tally
from harness.contract import Contract
from harness.images import IMAGE_SUFFIXES
from harness.progress import Advance

SAMPLE: Final = 16
"""So many images have their pixels searched, drawn with seed 0."""

Template = Callable[[Sequence[Any]], str | None]
"""A conversation as the checkpoint's chat template writes it; None where that cannot be done."""

_SIDE: Final = "dataset"


def findings(
    path: Path,
    contract: Contract,
    told: Advance,
    *,
    sources: Path | None = None,
    image_texts: Collection[str] = (),
    template: Template | None = None,
) -> Iterator[Finding]:
    """What the dataset at `path` says.

    `sources` is a folder with the images it was made from. `image_texts` and `template` come from
    a checkpoint: what its tokenizer takes for the image, and how it writes conversations.

    Raises:
        DatasetError: no dataset is there, or it is damaged.
        ArmUnavailable: a package that its form needs is missing.
    """
    if is_prepared(path):
        yield from _prepared(path, contract, told, sources)
        return
    found = records.read(path, contract.answer.labels)
    yield from _texts(found, contract, image_texts, template)
    yield from _sizes(found, contract)
    yield from _pictures(found, contract, told, sources)


def is_prepared(path: Path) -> bool:
    """True for a folder that `driftloop dataset prepare` made."""
    manifest = path / datasets.MANIFEST_NAME
    if not manifest.is_file():
        return False
    with manifest.open(encoding="utf-8", errors="replace") as lines:
        return '"pixels_sha256"' in lines.readline()


def _prepared(
    path: Path, contract: Contract, told: Advance, sources: Path | None
) -> Iterator[Finding]:
    loaded = datasets.load(path)
    manifest = path / datasets.MANIFEST_NAME
    where = f"{manifest}, {len(loaded.entries)} of {len(loaded.entries)} entries"
    stated = loaded.pixels.spelled_out
    sample = _sample(loaded.entries)
    squares = [(entry, entry.square()) for entry in sample]
    yield Finding("image_size", _SIDE, stated.size, where)
    pairs = [
        pixels.Pair(entry.image, square, source)
        for entry, square in squares
        if (source := _source(sources, entry.source, entry.source_sha256)) is not None
    ]
    searched = list(pixels.findings(pairs, _SIDE, str(manifest), contract, told)) if pairs else []
    yield from searched
    seen = {finding.aspect for finding in searched if finding.value is not None}
    for aspect, field in pixels.ASPECTS.items():
        if aspect not in seen:
            yield Finding(aspect, _SIDE, getattr(stated, field), where, "as the manifest says")
    found = {entry.label for entry in loaded.entries if entry.label is not None}
    if found:
        yield _label_set(found, contract, where)
    yield Finding("images_per_prompt", _SIDE, 1, where)
    looked_at = [entry for entry in loaded.entries if entry.label_image_sha256 is not None]
    if not looked_at:
        note = "the manifest does not say which pixels the labels were made on"
        yield Finding("label_image", _SIDE, None, where, note)
        return
    other = [e for e in looked_at if e.label_image_sha256 != e.pixels_sha256]
    value = "another picture" if other else "as the model sees it"
    note = f"{len(other)} of {len(looked_at)}, {other[0].source} first" if other else ""
    yield Finding("label_image", _SIDE, value, where, note)


def _texts(
    found: Records,
    contract: Contract,
    image_texts: Collection[str],
    template: Template | None,
) -> Iterator[Finding]:
    tally = Tally(_SIDE, str(found.root / found.kind.removeprefix("table ")))
    labels: set[str] = set()
    for record in found.records:
        for finding in _of_record(record, contract, image_texts, template, labels):
            tally.add(finding)
    yield from tally.findings()
    if labels:
        yield _label_set(labels, contract, str(found.root))


def _of_record(
    record: Record,
    contract: Contract,
    image_texts: Collection[str],
    template: Template | None,
    labels: set[str],
) -> Iterator[Finding]:
    prompt, target = record.prompt, record.target
    known = contract.answer.labels
    if prompt is None and record.text is not None and (both := targets.parted(record.text, known)):
        prompt, target = both
    if prompt is not None:
        yield from _of_prompt(record, prompt, contract, image_texts, template)
    if target is not None:
        read = targets.read(target, known)
        labels.add(read.label or target.strip())
        yield Finding("output", _SIDE, read.form, record.where, f"for example {target!r}")
        if record.text is not None and prompt is not None:
            yield _end(read, record)
    if record.max_tokens is not None:
        yield Finding("max_tokens", _SIDE, record.max_tokens, record.where)
    yield Finding("images_per_prompt", _SIDE, record.images, record.where)
    if (finding := label_image.finding(record, contract)) is not None:
        yield finding


def _end(read: targets.Target, record: Record) -> Finding:
    if read.ends:
        return Finding("end_token", _SIDE, True, record.where)
    note = "no end token is spelled out; whether one is added is the collator's to say"
    return Finding("end_token", _SIDE, None, record.where, note)


def _of_prompt(
    record: Record,
    prompt: str,
    contract: Contract,
    image_texts: Collection[str],
    template: Template | None,
) -> Iterator[Finding]:
    known = (*image_texts, prompt_parts.IMAGE_TOKEN) if record.image_is_structured else image_texts
    written = template(record.messages) if template and record.messages else None
    for finding in prompt_parts.findings(written or prompt, _SIDE, record.where, contract, known):
        if record.messages and not written and finding.aspect == "chat_template":
            note = (
                "a conversation: a trainer puts it into a chat template; which one is read with "
                "--checkpoint or --collator"
            )
            yield Finding("chat_template", _SIDE, None, record.where, note)
        else:
            yield finding


def _label_set(found: Collection[str], contract: Contract, where: str) -> Finding:
    outside = sorted(set(found) - set(contract.answer.labels))
    if outside:
        note = f"{len(outside)} are no labels of the contract, {outside[0]!r} first"
        return Finding("labels", _SIDE, tuple(sorted(found))[:12], where, note)
    absent = [label for label in contract.answer.labels if label not in found]
    note = f"no example of {', '.join(absent)}" if absent else ""
    return Finding("labels", _SIDE, contract.answer.labels, where, note)


def _sizes(found: Records, contract: Contract) -> Iterator[Finding]:
    sizes = Counter(
        size for record in found.records if (size := records.size_of(record)) is not None
    )
    total = sum(sizes.values())
    where = f"{found.root} ({found.kind}), {total} of {len(found.records)} images"
    if not total:
        note = "no entry names an image that can be opened"
        yield Finding("image_size", _SIDE, None, where, note)
        return
    wanted = (contract.pixels.size, contract.pixels.size)
    if set(sizes) == {wanted}:
        yield Finding("image_size", _SIDE, contract.pixels.size, where)
        return
    (common, count), *_ = [item for item in sizes.most_common() if item[0] != wanted]
    value: Value = common[0] if common[0] == common[1] else f"{common[0]}x{common[1]}"
    note = f"{count} of {total} are {common[0]}x{common[1]}"
    if len(sizes) > 1:
        note += f", {len(sizes)} sizes in all"
    yield Finding("image_size", _SIDE, value, where, note)
    if max(common) == contract.pixels.size and common[0] != common[1]:
        yield Finding("padding", _SIDE, "none", where, "the pictures fill no square")


def _pictures(
    found: Records, contract: Contract, told: Advance, sources: Path | None
) -> Iterator[Finding]:
    sample = _sample(found.records)
    pairs = []
    squares = []
    for record in sample:
        image = records.decoded(record)
        if image is None:
            continue
        squares.append(image)
        source = _named_source(record, found.root, sources)
        if source is not None:
            pairs.append(pixels.Pair(record.name, image, source))
    where = str(found.root)
    if pairs:
        yield from pixels.findings(pairs, _SIDE, where, contract, told)
        return
    yield from looks.findings(squares, where)
    note = "how the pixels were made is read from the source images; give --sources"
    yield Finding("resize", _SIDE, None, where, note)


def _named_source(record: Record, root: Path, sources: Path | None) -> Path | None:
    name = record.source
    if name is None or (name == record.name and sources is None):
        return _source(sources, record.name) if sources is not None else None
    if sources is not None and (found := _source(sources, name)) is not None:
        return found
    path = root / name
    return path if path.is_file() and name != record.name else None


def _source(folder: Path | None, name: str, sha256: str | None = None) -> Path | None:
    """The image called `name` below `folder`, whatever its suffix; the very one where `sha256`."""
    if folder is None:
        return None
    relative = Path(name)
    tried = [folder / relative, folder / relative.name]
    for base in (folder / relative, folder / relative.name):
        tried += sorted(base.parent.glob(f"{base.stem}.*")) if base.parent.is_dir() else []
    images = (path for path in tried if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())
    return next((p for p in images if sha256 is None or file_sha256(p) == sha256), None)


def _sample(items: Sequence[Any]) -> list[Any]:
    if len(items) <= SAMPLE:
        return list(items)
    return random.Random(0).sample(list(items), SAMPLE)  # noqa: S311 (a sample, not a secret)
