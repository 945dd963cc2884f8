"""What a trainer's configuration says: keys found by what they mean, in the table `keys.toml`.

Every key that is not in the table is left alone and counted.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Final

from harness.audit import sampling
from harness.audit.findings import Finding
from harness.audit.train_config import readers, values
from harness.audit.train_config.file import Setting, read
from harness.audit.train_config.readers import Scope
from harness.contract import Contract
from harness.errors import AuditError

if TYPE_CHECKING:
    from harness.audit.tokens import Tokens

EXTENSION: Final = "driftloop-keys.toml"
"""A table of further keys, beside a trainer's configuration."""

_SIDE: Final = "train-config"
_SAMPLING: Final = "sampling"
_SWITCHES: Final = frozenset({"do_sample", "temperature", "num_beams"})
"""Settings without which the others of sampling decide nothing."""

_Reader = Callable[[Scope, Setting], Iterator[Finding]]


def findings(
    file: Path,
    contract: Contract,
    *,
    image_texts: Sequence[str] = (),
    normalisation: tuple[list[float], list[float]] = ([0.5] * 3, [0.5] * 3),
    tokens: Tokens | None = None,
) -> Iterator[Finding]:
    """What the configuration in `file` says.

    `image_texts` are the texts that the checkpoint's tokenizer takes for the image; `normalisation`
    its processor's mean and deviation, by default SmolVLM's; `tokens` its tokenizer, which a
    sequence length is held against.

    Raises:
        AuditError: the file, or a table of keys beside it, cannot be read.
    """
    settings = read(file)
    scope = Scope(file, contract, image_texts, normalisation, tokens, tuple(settings))
    meanings = _meanings(file)
    yield from _sampling(scope, settings, meanings)
    named = any(one.key == "chat_template" and one.value is not None for one in settings)
    for setting in settings:
        if setting.key != "type" or not named:
            yield from _of(scope, setting, meanings)


def unread(file: Path, contract: Contract) -> int:
    """How many settings of `file` say nothing about any aspect."""
    scope = Scope(file, contract, (), ([], []))
    meanings = _meanings(file)
    return sum(
        1
        for setting in read(file)
        if meanings.get(setting.key) != _SAMPLING
        and not any(True for _ in _of(scope, setting, meanings))
    )


def _meanings(file: Path) -> dict[str, str]:
    """Key -> what it means; what the user adds goes before what comes with driftloop."""
    shipped = resources.files("harness.audit.train_config").joinpath("keys.toml")
    found = _inverted(tomllib.loads(shipped.read_text("utf-8"))["keys"])
    extension = file.parent / EXTENSION
    if not extension.is_file():
        return found
    try:
        table = tomllib.loads(extension.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise AuditError(f"{extension}: cannot be read: {error}") from error
    own = table.get("keys")
    known = sorted(set(found.values()))
    if not isinstance(own, dict) or not set(own) <= set(known):
        said = "; each line of it is a meaning and its keys, meanings are "
        raise AuditError(f"{extension}: wants a table [keys]{said}{', '.join(known)}")
    return found | _inverted(own)


def _inverted(table: Mapping[str, Sequence[str]]) -> dict[str, str]:
    return {
        key.lower().replace("-", "_"): meaning for meaning, keys in table.items() for key in keys
    }


def _of(scope: Scope, setting: Setting, meanings: Mapping[str, str]) -> Iterator[Finding]:
    if setting.value is None:
        return
    if values.is_about(setting, "label", "annotat"):
        yield from readers.labelling(scope, setting)
        return
    meaning = meanings.get(setting.key)
    if meaning is not None and meaning != _SAMPLING:
        reader: _Reader = getattr(readers, meaning)
        yield from reader(scope, setting)


def _sampling(
    scope: Scope, settings: Sequence[Setting], meanings: Mapping[str, str]
) -> Iterator[Finding]:
    tables: dict[tuple[str, ...], list[Setting]] = {}
    for setting in settings:
        if meanings.get(setting.key) == _SAMPLING and setting.value is not None:
            tables.setdefault(setting.path[:-1], []).append(setting)
    for found in tables.values():
        if not _SWITCHES.isdisjoint({one.key for one in found}):
            value = sampling.spoken({one.key: one.value for one in found})
            note = ", ".join(f"{one.name}: {one.value}" for one in found)
            yield Finding("sampling", _SIDE, value, scope.where(found[0]), note)
