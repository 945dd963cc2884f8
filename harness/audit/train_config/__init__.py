"""What a trainer's configuration says: keys found by what they mean, in the table `keys.toml`.

Every key that is not in the table is left alone and counted.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.audit import prompt_parts, values
from harness.audit.findings import Finding, Value
from harness.audit.tables import shipped
from harness.audit.tokens import Tokens
from harness.audit.train_config import settings
from harness.audit.train_config.settings import Setting
from harness.contract import Contract
from harness.errors import AuditError

EXTENSION: Final = "driftloop-keys.toml"
"""A table of further keys, beside a trainer's configuration."""

_SAMPLING: Final = "sampling"
_SWITCHES: Final = frozenset({"do_sample", "temperature", "num_beams"})
"""Settings without which the others of sampling decide nothing."""
_SIDE: Final = "train-config"
_SHOWN: Final = 48
_NO_TEMPLATE: Final = frozenset({"", "none", "null", "empty", "raw"})
_UNPADDED: Final = frozenset({"stretch", "squash", "crop", "center_crop", "cover"})
_COLUMNS: Final = frozenset({"labels", "label", "label_ids", "start_positions", "end_positions"})
"""transformers' own `label_names`: columns of a batch."""
_TILING: Final = frozenset({"do_image_splitting", "image_splitting", "split_image", "tiling"})
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
    found = settings.read(file)
    known = _keys(file)
    scope = _Scope(file, contract, tokens, tuple(found))
    findings = list(_sampling(scope, [one for one in found if known.get(one.key) == _SAMPLING]))
    is_named = any(one.key == "chat_template" and one.value is not None for one in found)
    keys_left = 0
    for setting in found:
        said = list(_of(scope, setting, known.get(setting.key)))
        if not said and known.get(setting.key) != _SAMPLING:
            keys_left += 1
        if setting.key != "type" or not is_named:
            findings += said
    return TrainConfig(findings, keys_left)


def _keys(file: Path) -> dict[str, str]:
    """Key -> what it means; what the user adds goes before what comes with driftloop."""
    found = _inverted(shipped("harness.audit.train_config", "keys.toml")["keys"])
    extension = file.parent / EXTENSION
    if not extension.is_file():
        return found
    try:
        own = tomllib.loads(extension.read_text("utf-8")).get("keys")
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise AuditError(f"{extension}: cannot be read: {error}") from error
    known = sorted(set(found.values()))
    if not isinstance(own, dict) or not set(own) <= set(known):
        said = "wants a table [keys]; each line of it is a meaning and its keys, meanings are "
        raise AuditError(f"{extension}: {said}{', '.join(known)}")
    return found | _inverted(own)


def _inverted(table: Mapping[str, Sequence[str]]) -> dict[str, str]:
    return {settings.normal(key): meaning for meaning, keys in table.items() for key in keys}


def _of(scope: _Scope, setting: Setting, meaning: str | None) -> Iterator[Finding]:
    if setting.value is None:
        return
    if setting.is_about("label", "annotat"):
        yield from _labelling(scope, setting)
    elif meaning in _PLAIN:
        aspect, value_of = _PLAIN[meaning]
        if (value := value_of(setting)) is not None:
            yield scope.finding(aspect, setting, value)
    elif meaning in _READERS:
        yield from _READERS[meaning](scope, setting)


def _sampling(scope: _Scope, found: Sequence[Setting]) -> Iterator[Finding]:
    tables: dict[tuple[str, ...], list[Setting]] = {}
    for setting in found:
        if setting.value is not None:
            tables.setdefault(setting.path[:-1], []).append(setting)
    for table in tables.values():
        if not _SWITCHES.isdisjoint({one.key for one in table}):
            value = values.sampling({one.key: one.value for one in table})
            note = ", ".join(f"{one.name}: {one.value}" for one in table)
            yield Finding("sampling", _SIDE, value, scope.where(table[0]), note)


@dataclass(frozen=True)
class _Scope:
    """What every setting is read against."""

    file: Path
    contract: Contract
    tokens: Tokens | None
    """The checkpoint's tokenizer, where there is one."""
    settings: tuple[Setting, ...]
    """All of the file."""

    def where(self, setting: Setting) -> str:
        """`file:line`."""
        return f"{self.file}:{setting.line}"

    def finding(
        self, aspect: str, setting: Setting, value: Value | None, note: str = ""
    ) -> Finding:
        """A finding that quotes the setting."""
        said = repr(setting.value) if isinstance(setting.value, str) else str(setting.value)
        said = f"{setting.name}: {said[:_SHOWN]}{'...' if len(said) > _SHOWN else ''}"
        return Finding(
            aspect, _SIDE, value, self.where(setting), f"{said}; {note}" if note else said
        )


def _loss(is_on_prompt: bool | None) -> str | None:
    return None if is_on_prompt is None else "prompt too" if is_on_prompt else "answer"


def _on_prompt(setting: Setting) -> str | None:
    """A weight of the prompt's loss counts as well."""
    weight = values.number(setting.value)
    return _loss(values.truth(setting.value) if weight is None else weight > 0)


def _tiling(setting: Setting) -> str | None:
    if setting.value in ("single", "split"):
        return str(setting.value)
    split = values.truth(setting.value)
    return None if split is None else "split" if split else "single"


def _size(setting: Setting) -> int | None:
    """The side of the images, where a `size` is one of images."""
    if setting.key == "size" and not setting.is_about("image", "img", "vision", "resize"):
        return None
    return max(values.sides(setting.value), default=None)


def _padding(setting: Setting) -> str | None:
    """A padding colour; `padding` alone may as well be of token sequences."""
    if setting.key in ("padding", "fill", "background", "pad_mode", "padding_mode"):
        about_images = setting.is_about("image", "img", "pixel", "transform", "preprocess")
        if not about_images and str(setting.value).lower() not in values.COLOURS:
            return None
    return values.colour(setting.value)


def _dataset_type(setting: Setting) -> str | None:
    """Axolotl's way of writing a dataset's conversations."""
    is_talk = setting.value == "chat_template" and "datasets" in setting.path
    return "the checkpoint's" if is_talk else None


def _ends(setting: Setting) -> bool | None:
    """Whether targets get an end token that the loss covers."""
    if setting.key == "train_on_eos":
        return setting.text not in ("none", "false")
    return values.truth(setting.value)


_PLAIN: Final[Mapping[str | None, tuple[str, Callable[[Setting], Value | None]]]] = {
    "size": ("image_size", _size),
    "padding": ("padding", _padding),
    "aspect_ratio": ("padding", lambda one: "none" if values.truth(one.value) is False else None),
    "mode": ("padding", lambda one: "none" if one.text in _UNPADDED else None),
    "limit": ("max_tokens", lambda one: values.whole(one.value)),
    "images": ("images_per_prompt", lambda one: values.whole(one.value)),
    "dataset_type": ("chat_template", _dataset_type),
    "context": ("context_block", lambda one: values.truth(one.value)),
    "exif": ("exif", lambda one: values.truth(one.value)),
    "channels": ("channels", lambda one: one.text if one.text in ("rgb", "bgr") else None),
    "tiling": ("tiling", _tiling),
    "on_prompt": ("loss", _on_prompt),
    "ends": ("end_token", _ends),
}
"""Meanings that say one thing: of which aspect, and how it is read."""


def _bound(scope: _Scope, setting: Setting) -> Iterator[Finding]:
    """A bound on the pixels of an image; one that the contract's square keeps to says nothing."""
    pixels = values.whole(setting.value)
    if pixels is not None and 1 < pixels < scope.contract.pixels.size**2:
        yield scope.finding("image_size", setting, round(pixels**0.5), "an upper bound")


def _prompt(scope: _Scope, setting: Setting) -> Iterator[Finding]:
    """A prompt, or a template of one: the labels filled in, the answer cut off."""
    if not isinstance(setting.value, str):
        return
    text, unknown = _filled(setting.value, scope.contract.answer.labels)
    where, known = scope.where(setting), scope.tokens.image_texts if scope.tokens else ()
    for found in prompt_parts.findings(text, _SIDE, where, scope.contract, known):
        if unknown and found.aspect == "prompt_words":
            note = f"what {{{unknown}}} becomes is the trainer's to say"
            yield Finding("prompt_words", _SIDE, None, where, note)
        elif found.aspect != "chat_template" or found.value != "none":
            yield found


def _filled(template: str, labels: Sequence[str]) -> tuple[str, str]:
    """A prompt template filled in, and the name of a variable that is left, if there is one."""
    answer = _ANSWER.search(template)
    text = template[: answer.start()] if answer else template
    text = _CONTEXT.sub(r"\1...", _LABELS.sub(", ".join(labels), text))
    left = [name for name in _VARIABLE.findall(text) if name not in ("image", "media")]
    return text, left[0] if left else ""


def _length(scope: _Scope, setting: Setting) -> Iterator[Finding]:
    """A length of whole sequences: what it cuts of the prompt, and whether it is `generate`'s own,
    which counts the prompt in."""
    generates = setting.is_about("generat", "gen_", "inference", "decod", "predict")
    if setting.key == "generation_max_length" or (setting.key == "max_length" and generates):
        yield scope.finding("limit_counts_prompt", setting, True, "`generate` counts the prompt in")
        return
    note = "a sequence length, which limits prompt and answer in training, not generation"
    yield scope.finding("max_tokens", setting, None, note)
    truncates = all(
        values.truth(one.value) is not False for one in scope.settings if one.key == "truncation"
    )
    if scope.tokens is not None and isinstance(setting.value, int) and truncates:
        yield _cut(scope, setting, setting.value, scope.tokens)


def _cut(scope: _Scope, setting: Setting, room: int, tokens: Tokens) -> Finding:
    """What of prompt and answer does not fit into `room` tokens."""
    tilings = (_tiling(one) for one in scope.settings if one.key in _TILING)
    tiling = next((one for one in tilings if one is not None), None)
    contract = tokens.trained_under(scope.contract, None if tiling is None else tiling == "split")
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


def _resize(scope: _Scope, setting: Setting) -> Iterator[Finding]:
    """A resize filter: of the pictures, or of the processor's tiles."""
    aspect = "tile_resize" if setting.is_about("processor") else "resize"
    yield scope.finding(aspect, setting, values.filter_name(setting.value))


def _normalisation(scope: _Scope, setting: Setting) -> Iterator[Finding]:
    """A mean or a deviation against the checkpoint's."""
    found = values.numbers(setting.value)
    is_ours = setting.is_about("image", "normal", "transform", "processor", "pixel")
    if found is None or (setting.key in ("mean", "std") and not is_ours):
        return
    own = scope.tokens.settings if scope.tokens else {}
    wanted = own.get("image_std" if "std" in setting.key else "image_mean") or [0.5] * 3
    wanted = wanted if len(found) == len(wanted) else wanted[:1]
    same = len(found) == len(wanted) and all(
        abs(a - b) < 1e-4 for a, b in zip(found, wanted, strict=True)
    )
    said = "the checkpoint's" if same else f"{setting.key} {found}"
    yield scope.finding("normalisation", setting, said, "" if same else f"not {wanted}")


def _on_answer(scope: _Scope, setting: Setting) -> Iterator[Finding]:
    """The loss covers the answer alone if this is set."""
    alone = values.truth(setting.value)
    if setting.key == "assistant_only_loss" and not alone:
        yield scope.finding("loss", setting, None, "TRL's default; it alone does not decide")
    elif alone is not None:
        yield scope.finding("loss", setting, _loss(not alone))


def _template(scope: _Scope, setting: Setting) -> Iterator[Finding]:
    """A chat template by its name, its text, or switched on and off."""
    value, is_text = setting.value, isinstance(setting.value, str)
    if is_text and setting.key == "template" and ("{" in value or "\n" in value):
        yield from _prompt(scope, setting)
    elif values.truth(value) is False or (is_text and value.lower() in _NO_TEMPLATE):
        yield scope.finding("chat_template", setting, "none")
    elif values.truth(value) is True:
        yield scope.finding("chat_template", setting, "the checkpoint's")
    elif is_text:
        yield scope.finding("chat_template", setting, value)


def _target(scope: _Scope, setting: Setting) -> Iterator[Finding]:
    """The form of a target around the label."""
    if not isinstance(setting.value, str) or not _ANSWER.search(setting.value):
        return
    labels = scope.contract.answer.labels
    read_back = prompt_parts.read_target(_ANSWER.sub(labels[0], setting.value), labels)
    yield scope.finding("output", setting, read_back.form)
    if read_back.ends:
        yield scope.finding("end_token", setting, True)


def _label_names(scope: _Scope, setting: Setting) -> Iterator[Finding]:
    """The labels themselves."""
    found, known = setting.value, scope.contract.answer.labels
    if not isinstance(found, list) or not found or _COLUMNS.issuperset(map(str, found)):
        return
    if all(isinstance(name, str) for name in found):
        yield scope.finding("labels", setting, known if set(found) == set(known) else tuple(found))


def _labelling(scope: _Scope, setting: Setting) -> Iterator[Finding]:
    """A key about how the labels were made."""
    if setting.key in ("labels", "label_names"):
        yield from _label_names(scope, setting)
        return
    if not any(word in setting.key for word in _LABEL_SIZES):
        return
    said = setting.text if isinstance(setting.value, str) else ""
    if sides := values.sides(setting.value):
        same = max(sides) == scope.contract.pixels.size
    elif any(word in said for word in ("full", "original", "native", "prepared")):
        same = not any(word in said for word in ("full", "original", "native"))
    else:
        return
    found = "as the model sees it" if same else "another picture"
    yield scope.finding("label_image", setting, found)


_READERS: Final[Mapping[str | None, Callable[[_Scope, Setting], Iterator[Finding]]]] = {
    "bound": _bound,
    "prompt": _prompt,
    "length": _length,
    "resize": _resize,
    "normalisation": _normalisation,
    "on_answer": _on_answer,
    "template": _template,
    "target": _target,
    "label_names": _label_names,
}
"""Meanings for which key, table or checkpoint count as well."""
