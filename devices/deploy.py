"""Files on the phone, content-addressed: pushed once, verified there, never used in part.

A blob lies under its SHA-256. It arrives as `<sha256>.part` and gets its name only after the phone
itself has hashed it, so a name without `.part` is the mark of a verified blob. A large one is
hashed while it still arrives, so that almost nothing is left to do at its end.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from driftloop.devices.errors import CommandFailed, PermissionDenied, StableError, StorageFull
from driftloop.devices.phone import REMOTE_ROOT, Phone, hash_limit_s
from driftloop.devices.subprocesses import reason

REMOTE_BLOBS = f"{REMOTE_ROOT}/blobs"

_BATCH_BYTES = 8 * 1024 * 1024
_ARRIVAL_SILENCE_S = 15
_SLOWEST_BYTES_PER_S = 250_000
_LISTING_LIMIT_S = 120.0
_BATCH_FILES = 48
"""Keeps a batch's command below 4096 bytes, which the oldest adbd takes."""

_NEEDED = ("sha256sum", "setsid", "nohup", "tail", "grep", "tr", "df")
_LACKS = "lacks "
_TOOLS = (
    f"for tool in {' '.join(_NEEDED)}; do command -v $tool >/dev/null || echo {_LACKS}$tool; done; "
    f"command -v dd >/dev/null && stat -c %s / >/dev/null 2>&1 || echo {_LACKS}dd"
)
"""Prints what the phone's shell lacks. Without dd and `stat -c` a large file is hashed only after
it has arrived."""
_LISTED = re.compile(r"-(\S{9})\S*(?: +\S+){3} +(\d{1,18}) .* (\S+)")
"""A file's line of `ls -ln`: its mode, size and name."""

Progress = Callable[[int, int], None]
"""Called with (bytes sent, bytes to send)."""


@dataclass(frozen=True)
class LocalBlob:
    """A file of this host, and the hash under which the phone knows it."""

    path: Path
    sha256: str
    executable: bool = False

    @property
    def size(self) -> int:
        """Bytes."""
        return self.path.stat().st_size


class _Stored(NamedTuple):
    size: int
    executable: bool


class _Folder(NamedTuple):
    """The blob folder of a phone."""

    blobs: dict[str, _Stored]
    """Parts too, by name."""
    hashes_while_arriving: bool
    """Whether the phone's shell has the tools for it."""


def deploy(
    phone: Phone, files: Sequence[LocalBlob], *, progress: Progress | None = None
) -> dict[str, str]:
    """Bring the files to the phone; their paths there by SHA-256.

    What is there already is not sent or hashed again. The caller holds the phone's lease. After a
    ConnectionLost the same call continues with the files that are still missing.

    Raises:
        StorageFull: not enough space; nothing was sent.
        PermissionDenied: the phone lets nothing be written there.
        StableError: the phone's shell lacks a tool (nothing was sent), or a file is not what its
            hash says, here or after the transfer.
    """
    stored, while_arriving = _stored(phone)
    wanted = {blob.sha256: blob for blob in files}
    if lacking := _lacking(stored, wanted.values()):
        _send(phone, lacking, progress, while_arriving=while_arriving)
    plain = {sha256 for sha256, found in stored.items() if not found.executable}
    if became := [sha256 for sha256, blob in wanted.items() if blob.executable and sha256 in plain]:
        phone.shell(f"cd {REMOTE_BLOBS} && chmod 755 {shlex.join(became)}")
    return {sha256: f"{REMOTE_BLOBS}/{sha256}" for sha256 in wanted}


def missing(phone: Phone, files: Sequence[LocalBlob]) -> set[str]:
    """The SHA-256 of what a deploy of `files` would send now."""
    return {blob.sha256 for blob in _lacking(_stored(phone).blobs, files)}


def prune(phone: Phone, keep: set[str]) -> int:
    """Remove every blob whose SHA-256 is not in `keep`, and parts; the bytes that this freed."""
    doomed = {name: found.size for name, found in _stored(phone).blobs.items() if name not in keep}
    if doomed:
        kept = " ".join(f"-e {shlex.quote(name)}" for name in (*keep, "."))
        phone.shell(
            f"cd {REMOTE_BLOBS} && ls | grep -vxF {kept} | xargs rm -f", timeout_s=_LISTING_LIMIT_S
        )
    return sum(doomed.values())


def _lacking(stored: dict[str, _Stored], files: Iterable[LocalBlob]) -> list[LocalBlob]:
    sizes = {name: found.size for name, found in stored.items()}
    return [blob for blob in files if sizes.get(blob.sha256) != blob.size]


def _stored(phone: Phone) -> _Folder:
    """What lies in the blob folder, which is made if it is missing."""
    # Not `stat *`: the command line of 20,000 blobs is too long for the kernel.
    listing = f"mkdir -p {REMOTE_BLOBS} && cd {REMOTE_BLOBS} && ls -ln"
    try:
        printed = phone.shell(f"{_TOOLS}; {listing}", timeout_s=_LISTING_LIMIT_S).stdout
    except CommandFailed as error:
        why = reason(error.stderr)
        if "No space left" in why:
            raise StorageFull(f"{phone.serial}: no space for {REMOTE_BLOBS}: {why}") from error
        raise PermissionDenied(
            f"{phone.serial}: cannot use {REMOTE_BLOBS}: {why}; remove that folder on the phone"
        ) from error
    lines = printed.splitlines()
    lacking = [line.removeprefix(_LACKS) for line in lines if line.startswith(_LACKS)]
    if needed := [name for name in lacking if name in _NEEDED]:
        raise StableError(
            f"{phone.serial}: its shell has no {', '.join(needed)}, which driftloop needs; "
            f"Android has it since version 6: use another phone, or its original system"
        )
    rows = filter(None, map(_LISTED.fullmatch, lines))
    blobs = {row[3]: _Stored(int(row[2]), "x" in row[1]) for row in rows}
    return _Folder(blobs, hashes_while_arriving=not lacking)


def _send(
    phone: Phone, lacking: list[LocalBlob], progress: Progress | None, *, while_arriving: bool
) -> None:
    # Parts of a run that was cut off would otherwise count against the space for this one.
    phone.shell(f"cd {REMOTE_BLOBS} && rm -f *.part")
    total = sum(blob.size for blob in lacking)
    free = phone.free_bytes(REMOTE_BLOBS)
    if total > free:
        raise StorageFull(
            f"{phone.serial}: {_mib(total)} needed in {REMOTE_BLOBS}, {_mib(free)} free; "
            f"free some storage on the phone"
        )
    sent = 0

    def advance(size: int) -> None:
        nonlocal sent
        sent += size
        if progress is not None:
            progress(sent, total)

    checks: list[Future[None]] = []
    # The phone hashes what has arrived while more travels.
    with ThreadPoolExecutor(max_workers=1) as background:
        for batch in _batches(lacking):
            arriving = None
            if while_arriving and batch[0].size > _BATCH_BYTES:
                arriving = background.submit(_hashed_while_arriving, phone, batch[0])
            for blob in batch:
                part = f"{REMOTE_BLOBS}/{blob.sha256}.part"
                with blob.path.open("rb") as source:
                    phone.send(source, part, executable=blob.executable, progress=advance)
            checks.append(background.submit(_verify, phone, batch, arriving))
        for check in checks:
            check.result()


def _batches(lacking: list[LocalBlob]) -> Iterator[list[LocalBlob]]:
    """Large files each alone, largest first; small ones together, to save round trips."""
    batch: list[LocalBlob] = []
    size = 0
    for blob in sorted(lacking, key=lambda blob: blob.size, reverse=True):
        if batch and (size + blob.size > _BATCH_BYTES or len(batch) == _BATCH_FILES):
            yield batch
            batch, size = [], 0
        batch.append(blob)
        size += blob.size
    yield batch


def _hashed_while_arriving(phone: Phone, blob: LocalBlob) -> bool:
    """Whether the part's bytes, read as they arrive, have the right hash.

    False also when the phone waited for them in vain. Counts in units of 10^6 bytes, taken from
    the size's digits: the shell of many phones computes in 32 bits.
    """
    command = (
        f"cd {REMOTE_BLOBS} && part={blob.sha256}.part && read=0 && idle=0\n"
        f"while [ $idle -lt {_ARRIVAL_SILENCE_S * 50} ]; do\n"
        f"  size=$(stat -c %s $part 2>/dev/null); here=0\n"
        f"  case $size in\n"
        f"    {blob.size}) dd if=$part bs=1000000 skip=$read 2>/dev/null; break;;\n"
        f'    "") [ $read -eq 0 ] || break;;\n'
        f"    ???????*) here=${{size%??????}};;\n"
        f"  esac\n"
        f"  if [ $here -gt $read ]; then\n"
        f"    dd if=$part bs=1000000 skip=$read count=$((here - read)) 2>/dev/null\n"
        f"    read=$here; idle=0\n"
        f"  else sleep 0.02; idle=$((idle + 1)); fi\n"
        f"done | sha256sum"
    )
    limit_s = _ARRIVAL_SILENCE_S + blob.size / _SLOWEST_BYTES_PER_S
    return phone.shell(command, timeout_s=limit_s).stdout.startswith(blob.sha256)


def _verify(phone: Phone, batch: list[LocalBlob], arriving: Future[bool] | None) -> None:
    """Give the intact parts their names; hashed here if not while they arrived."""
    if arriving is not None and arriving.result():
        (whole,) = batch
        phone.shell(f"cd {REMOTE_BLOBS} && mv {whole.sha256}.part {whole.sha256}")
        return
    names = shlex.join(blob.sha256 for blob in batch)
    command = (
        f"cd {REMOTE_BLOBS} && for blob in {names}; do "
        f'if [ "$(sha256sum <$blob.part)" = "$blob  -" ]; then mv $blob.part $blob; '
        f"else rm -f $blob.part; echo $blob; fi; done"
    )
    limit_s = hash_limit_s(sum(blob.size for blob in batch))
    damaged = phone.shell(command, timeout_s=limit_s).stdout.split()
    for blob in batch:
        if blob.sha256 in damaged:
            raise StableError(
                f"{phone.serial}: {blob.path} arrived with a hash other than SHA-256 "
                f"{blob.sha256}; check the file and the cable and repeat"
            )


def _mib(size: int) -> str:
    return f"{size / 1024 / 1024:.1f} MiB"
