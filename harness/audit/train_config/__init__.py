"""What a trainer's configuration says: keys found by what they mean, in the tables of `keys.toml`.

Every key that is not in them is left alone and counted.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict

from harness.audit import prompt_parts, values
from harness.audit.aspects import BY_KEY
from harness.audit.checkpoint import Tokens
from harness.audit.findings import Finding, Value
from harness.audit.train_config import settings
from harness.audit.train_config.settings import Setting
from harness.contract import Contract
from harness.errors import AuditError
from harness.shipped import shipped

EXTENSION: Final = "driftloop-keys.toml"
"""Further tables, beside a trainer's configuration."""

_SIDE: Final = "train-config"
_SAMPLING: Final = "sampling"
_SWITCHES: Final = frozenset({"do_sample", "temperature", "num_beams"})
"""Settings without which the others of sampling decide nothing."""
_SHOWN: Final = 48
_COLUMNS: Final = frozenset({"labels", "label", "label_ids", "start_positions", "end_positions"})
"""transformers' own `label_names`: columns of a batch."""
_LABEL_SIZES: Final = ("size", "resolution", "width", "image", "pixels", "edge")
_ANSWER: Final = re.compile(r"\{\{?\s*(?:label|target|answer|response|output|completion)\s*\}?\}")
_LABELS: Final = re.compile(
    r"\{\{?\s*(?:labels|classes|elements|categories|label_names|options)\s*\}?\}"
)
_CONTEXT: Final = re.compile(r"(context:\s*)\{\{?\s*\w+\s*\}?\}", re.IGNORECASE)
_VARIABLE: Final = re.compile(r"\{\{?\s*(\w+)\s*\}?\}")


@dataclass(frozen=True)
class TrainConfig:
    """A configuration, read."""

    findings: list[Finding]
    keys_left: int
    """Settings that say nothing about any aspect."""


def read(file: Path, contract: Contract, tokens: Tokens | None = None) -> TrainConfig:
    """What the configuration in `file` says.

    `tokens`: of the checkpoint that is trained, whose image token, normalisation and number of
    tokens it is held against; without one, SmolVLM's normalisation.

    Raises:
        AuditError: the file, or a table of keys beside it, cannot be read.
    """
    known, says = _tables(file)
    of_meaning: dict[str, list[Setting]] = {}
    found = settings.read(file)
    for setting in found:
        of_meaning.setdefault(known.get(setting.key, ""), []).append(setting)
    scope = _Scope(file, contract, tokens, says, of_meaning)
    findings = list(_sampling(scope))
    keys_left = 0
    for setting in found:
        meaning = known.get(setting.key, "")
        said = list(_of(scope, setting, meaning)) if setting.value is not None else []
        findings += said
        keys_left += not said and meaning != _SAMPLING
    return TrainConfig(findings, keys_left)


class _Tables(BaseModel):
    """The tables of `keys.toml`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    keys: dict[str, list[str]] = {}
    """Meaning -> the keys that have it."""
    says: dict[str, dict[str, str | bool]] = {}
    """Meaning -> its `aspect`, and what each value says of it."""


def _tables(file: Path) -> tuple[dict[str, str], dict[str, dict[str, str | bool]]]:
    """Key -> meaning, and meaning -> what its values say; what the user adds goes before what
    comes with driftloop."""
    both = [_Tables.model_validate(shipped("harness.audit.train_config", "keys.toml"))]
    extension = file.parent / EXTENSION
    if extension.is_file():
        try:
            both.append(_Tables.model_validate(tomllib.loads(extension.read_text("utf-8"))))
        except (OSError, ValueError) as error:
            said = " ".join(str(error).split())
            raise AuditError(f"{extension}: cannot be read: {said}") from error
    known: dict[str, str] = {}
    says = both[0].says | both[-1].says
    meanings = both[0].keys.keys() | says.keys()
    for table in both:
        is_known = all(one.get("aspect") in BY_KEY for one in table.says.values())
        if not is_known or not table.keys.keys() <= meanings:
            said = "[keys] gives a meaning its keys, [says] a new one its aspect; meanings are"
            raise AuditError(f"{extension}: {said} {', '.join(sorted(meanings))}")
        for meaning, keys in table.keys.items():
            known |= {settings.normal(key): meaning for key in keys}
    return known, says


@dataclass(frozen=True)
class _Scope:
    """What every setting is read against."""

    file: Path
    contract: Contract
    tokens: Tokens | None
    """The checkpoint's tokenizer, where there is one."""
    says: Mapping[str, Mapping[str, str | bool]]
    """Meaning -> its aspect, and what each value says of it."""
    of_meaning: Mapping[str, Sequence[Setting]]
    """All of the file's settings by what they mean."""

    def said(self, meaning: str, setting: Setting) -> Value | None:
        """What the setting says in the table of its meaning; a number above 0 is a yes."""
        weight = values.number(setting.value)
        is_on = values.truth(setting.value) if weight is None else weight > 0
        word = setting.text if is_on is None else "yes" if is_on else "no"
        return self.says[meaning].get(word)

    def finding(
        self, aspect: str, setting: Setting, value: Value | None, note: str = ""
    ) -> Finding:
        """A finding that quotes the setting."""
        said = repr(setting.value) if isinstance(setting.value, str) else str(setting.value)
        said = f"{setting.name}: {said[:_SHOWN]}{'...' if len(said) > _SHOWN else ''}"
        where = f"{self.file}:{setting.line}"
        return Finding(aspect, _SIDE, value, where, f"{said}; {note}" if note else said)


_Reader = Callable[[_Scope, Setting], Iterator[Finding]]


def _of(scope: _Scope, setting: Setting, meaning: str) -> Iterator[Finding]:
    if setting.is_about("label", "annotat") and meaning != "label_names":
        yield from _labelling(scope, setting)
    elif meaning in _READERS:
        yield from _READERS[meaning](scope, setting)
    elif meaning in scope.says and (value := scope.said(meaning, setting)) is not None:
        yield scope.finding(str(scope.says[meaning]["aspect"]), setting, value)


def _sampling(scope: _Scope) -> Iterator[Finding]:
    """What `generate` is told, table by table."""
    tables: dict[tuple[str, ...], list[Setting]] = {}
    for setting in scope.of_meaning.get(_SAMPLING, ()):
        if setting.value is not None:
            tables.setdefault(setting.path[:-1], []).append(setting)
    for table in tables.values():
        if not _SWITCHES.isdisjoint(one.key for one in table):
            value = values.sampling({one.key: one.value for one in table})
            note = ", ".join(f"{one.name}: {one.value}" for one in table)
            yield Finding("sampling", _SIDE, value, f"{scope.file}:{table[0].line}", note)


def _labelling(scope: _Scope, setting: Setting) -> Iterator[Finding]:
    """A key about the pictures that the labels were made on."""
    if any(word in setting.key for word in _LABEL_SIZES):
        same = values.is_square(setting.value, scope.contract.pixels.size)
        if same is not None:
            found = "as the model sees it" if same else "another picture"
            yield scope.finding("label_image", setting, found)


def _says(aspect: str, value_of: Callable[[Setting], Value | None]) -> _Reader:
    """A reader of what a setting says by itself."""

    def read(scope: _Scope, setting: Setting) -> Iterator[Finding]:
        if (value := value_of(setting)) is not None:
            yield scope.finding(aspect, setting, value)

    return read


def _size(setting: Setting) -> int | None:
    """The side of the images, where a `size` is one of images."""
    if setting.key == "size" and not setting.is_about("image", "img", "vision", "resize"):
        return None
    return max(values.sides(setting.value), default=None)


def _bound(scope: _Scope, setting: Setting) -> Iterator[Finding]:
    """A bound on the pixels of an image; one that the contract's square keeps to says nothing."""
    pixels = values.whole(setting.value)
    if pixels is not None and 1 < pixels < scope.contract.pixels.size**2:
        yield scope.finding("image_size", setting, round(pixels**0.5), "an upper bound")


def _padding(setting: Setting) -> str | None:
    """A padding colour; `padding` alone may as well be of token sequences."""
    if setting.key in ("padding", "fill", "background", "pad_mode", "padding_mode"):
        about_images = setting.is_about("image", "img", "pixel", "transform", "preprocess")
        if not about_images and setting.text not in values.COLOURS:
            return None
    return values.colour(setting.value)


def _resize(scope: _Scope, setting: Setting) -> Iterator[Finding]:
    """A resize filter: of the pictures, or of the processor's tiles."""
    aspect = "tile_resize" if setting.is_about("processor") else "resize"
    yield scope.finding(aspect, setting, values.filter_name(setting.value))


def _normalisation(scope: _Scope, setting: Setting) -> Iterator[Finding]:
    """A mean or a deviation against the checkpoint's; a single number is every channel's."""
    found = values.numbers(setting.value)
    is_ours = setting.is_about("image", "normal", "transform", "processor", "pixel")
    if found is None or (setting.key in ("mean", "std") and not is_ours):
        return
    own = scope.tokens.settings if scope.tokens else {}
    wanted = own.get("image_std" if "std" in setting.key else "image_mean") or [0.5] * 3
    pairs = zip(found * 3 if len(found) == 1 else found, wanted, strict=False)
    same = len(found) in (1, len(wanted)) and all(abs(a - b) < 1e-4 for a, b in pairs)
    said = "the checkpoint's" if same else f"{setting.key} {found}"
    yield scope.finding("normalisation", setting, said, "" if same else f"not {wanted}")


def _prompt(scope: _Scope, setting: Setting) -> Iterator[Finding]:
    """A prompt, or a template of one: the labels filled in, the answer cut off."""
    if not isinstance(setting.value, str):
        return
    text = _ANSWER.split(setting.value)[0]
    text = _LABELS.sub(", ".join(scope.contract.answer.labels), text)
    text = _CONTEXT.sub(r"\1...", text)
    unknown = [name for name in _VARIABLE.findall(text) if name not in ("image", "media")]
    where, known = f"{scope.file}:{setting.line}", scope.tokens.image_texts if scope.tokens else ()
    for found in prompt_parts.findings(text, _SIDE, where, scope.contract, known):
        if unknown and found.aspect == "prompt_words":
            note = f"what {{{unknown[0]}}} becomes is the trainer's to say"
            yield Finding("prompt_words", _SIDE, None, where, note)
        elif found.aspect != "chat_template" or found.value != "none":
            yield found


def _template(scope: _Scope, setting: Setting) -> Iterator[Finding]:
    """A chat template by its name, its text, or switched on and off."""
    value = scope.said("template", setting)
    if setting.key == "template" and re.search(r"[{\n]", setting.text):
        yield from _prompt(scope, setting)
    elif value is not None or isinstance(setting.value, str):
        yield scope.finding("chat_template", setting, value or setting.value)


def _dataset_type(scope: _Scope, setting: Setting) -> Iterator[Finding]:
    """Axolotl's way of writing a dataset's conversations, where no template is named beside."""
    named = [one for one in scope.of_meaning.get("template", ()) if one.key == "chat_template"]
    is_talk = setting.value == "chat_template" and "datasets" in setting.path
    if is_talk and all(one.value is None for one in named):
        yield scope.finding("chat_template", setting, "the checkpoint's")


def _target(scope: _Scope, setting: Setting) -> Iterator[Finding]:
    """The form of a target around the label."""
    if isinstance(setting.value, str) and _ANSWER.search(setting.value):
        labels = scope.contract.answer.labels
        target = prompt_parts.read_target(_ANSWER.sub(labels[0], setting.value), labels)
        yield scope.finding("output", setting, target.form)
        if target.ends:
            yield scope.finding("end_token", setting, True)


def _label_names(scope: _Scope, setting: Setting) -> Iterator[Finding]:
    """The labels themselves."""
    found, known = setting.value, scope.contract.answer.labels
    if not isinstance(found, list) or not found or _COLUMNS.issuperset(map(str, found)):
        return
    if all(isinstance(name, str) for name in found):
        yield scope.finding("labels", setting, known if set(found) == set(known) else tuple(found))


def _length(scope: _Scope, setting: Setting) -> Iterator[Finding]:
    """A length of whole sequences: what it cuts of the prompt, and whether it is `generate`'s own,
    which counts the prompt in."""
    generates = setting.is_about("generat", "gen_", "inference", "decod", "predict")
    if setting.key == "generation_max_length" or (setting.key == "max_length" and generates):
        yield scope.finding("limit_counts_prompt", setting, True, "`generate` counts the prompt in")
        return
    note = "a sequence length, which limits prompt and answer in training, not generation"
    yield scope.finding("max_tokens", setting, None, note)
    truncations = scope.of_meaning.get("truncation", ())
    truncates = all(values.truth(one.value) is not False for one in truncations)
    if scope.tokens is not None and isinstance(setting.value, int) and truncates:
        yield _cut(scope, setting, setting.value, scope.tokens)


def _cut(scope: _Scope, setting: Setting, room: int, tokens: Tokens) -> Finding:
    """What of prompt and answer does not fit into `room` tokens."""
    said = [scope.said("tiling", one) for one in scope.of_meaning.get("tiling", ())]
    contract = tokens.trained_under(scope.contract, said[0] == "split" if any(said) else None)
    prompt = tokens.prompt(contract)
    lost = prompt.image_tokens - prompt.ids[:room].count(prompt.image_id)
    whole = len(prompt.ids) + tokens.longest_answer(scope.contract)
    value = "whole"
    if lost:
        value = f"cuts {lost:,} of {prompt.image_tokens:,} image tokens"
    elif whole > room:
        value = f"cuts {whole - room:,} of {whole:,} tokens, the answer first"
    note = f"an example is {len(prompt.ids):,} prompt tokens ({contract.tiling}) and the answer"
    return scope.finding("sequence", setting, value, note)


_READERS: Final[Mapping[str, _Reader]] = {
    "size": _says("image_size", _size),
    "bound": _bound,
    "padding": _says("padding", _padding),
    "resize": _resize,
    "normalisation": _normalisation,
    "prompt": _prompt,
    "template": _template,
    "dataset_type": _dataset_type,
    "images": _says("images_per_prompt", lambda one: values.whole(one.value)),
    "limit": _says("max_tokens", lambda one: values.whole(one.value)),
    "length": _length,
    "target": _target,
    "label_names": _label_names,
}
"""Meanings whose settings take more to read than a look into `[says]`."""
