"""What a trainer's configuration (YAML, TOML or JSON) says, by the tables of `keys.toml`."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, time
from pathlib import Path
from typing import Any, Final

from pydantic import Field, ValidationError

from driftloop.devices import files
from driftloop.harness import tables, yaml_text
from driftloop.harness.audit import prompt_parts, values
from driftloop.harness.audit.aspects import BY_KEY
from driftloop.harness.audit.checkpoint import Tokens
from driftloop.harness.audit.findings import Finding, Value
from driftloop.harness.contract import Contract
from driftloop.harness.errors import AuditError
from driftloop.harness.jsonl import Record, first_problem
from driftloop.harness.shipped import loads, shipped, toml_table
from driftloop.harness.tables import TableError

_SIDE: Final = "train-config"
_SWITCHES: Final = frozenset({"do_sample", "temperature", "num_beams"})
"""Settings without which the others of sampling decide nothing."""
_IMAGE_TOKENS: Final = 64
"""Of a tile, in every published SmolVLM."""
_COLUMNS: Final = frozenset({"labels", "label", "label_ids", "start_positions", "end_positions"})
"""transformers' own `label_names`: columns of a batch."""
_LABEL_SIZES: Final = ("size", "resolution", "width", "image", "pixels", "edge")
_OF_IMAGES: Final = ("image", "img", "pixel", "transform", "preprocess")
_ANSWER: Final = re.compile(r"\{\{?\s*(?:label|target|answer|response|output|completion)\s*\}?\}")
_LABELS: Final = re.compile(r"\{\{?\s*(?:labels|classes|elements|categories)\s*\}?\}")
_CONTEXT: Final = re.compile(r"(context:\s*)\{\{?\s*\w+\s*\}?\}", re.IGNORECASE)
_VARIABLE: Final = re.compile(r"\{\{?\s*(\w+)\s*\}?\}")
_COMMENT: Final = re.compile(r"(^|\s)#.*", re.MULTILINE)

_Said = tuple[str, Value | None, str]


@dataclass(frozen=True)
class Setting:
    """One key and its value. A list of plain values is one value; tables are gone into."""

    path: tuple[str, ...]
    """Keys from the outside to the inside: lower case, `_` for `-`."""
    value: Any
    """Text, a number, yes or no, nothing, or a list of such."""
    line: int
    meaning: str
    """Of its key, in the tables; empty where it is not in them."""

    @property
    def key(self) -> str:
        return self.path[-1]

    @property
    def text(self) -> str:
        return str(self.value).lower()

    def is_about(self, *words: str) -> bool:
        """Whether a table around it, or its own key before its last word, is about `words`."""
        outside = (*self.path[:-1], self.key.rpartition("_")[0])
        return any(word in part for part in outside for word in words)


def read(file: Path, contract: Contract, tokens: Tokens | None = None) -> tuple[list[Finding], int]:
    """What the configuration in `file` says, and the number of settings that concern no aspect.
    `tokens`: of the checkpoint that it is compared with; without one, SmolVLM's normalisation.
    Raises AuditError where the file, or a table of keys beside it, cannot be read."""
    meanings, says = _tables(file)
    settings = _settings_of(file, meanings)
    reading = _Reading(file, contract, tokens, says, settings)
    findings, keys_left = list(reading.sampling()), 0
    for setting in settings:
        said = list(reading.findings(setting)) if setting.value is not None else []
        findings += said
        keys_left += not said and setting.meaning != "sampling"
    return findings, keys_left


class _Tables(Record):
    keys: dict[str, list[str]] = Field(default_factory=dict)
    """Meaning -> the keys that have it."""
    says: dict[str, dict[str, str | bool]] = Field(default_factory=dict)
    """Meaning -> its `aspect`, and what each value says of it."""


def _tables(file: Path) -> tuple[dict[str, str], dict[str, dict[str, str | bool]]]:
    """Key -> meaning, and meaning -> what its values say; what the user adds takes precedence."""
    own = _Tables.model_validate(shipped("driftloop.harness.audit.train_config", "keys.toml"))
    extension = file.parent / "driftloop-keys.toml"
    try:
        added = _Tables.model_validate(
            toml_table(extension, str(extension), AuditError) if extension.is_file() else {}
        )
    except ValidationError as error:
        raise AuditError(f"{extension}: {first_problem(error)}") from error
    says = own.says | added.says
    known = own.keys.keys() | says.keys()
    are_aspects = all(one.get("aspect") in BY_KEY for one in says.values())
    if not are_aspects or not added.keys.keys() <= known:
        said = "[keys] gives a meaning its keys, [says] a new one its aspect; meanings are"
        raise AuditError(f"{extension}: {said} {', '.join(sorted(known))}")
    named = (*own.keys.items(), *added.keys.items())
    return {_normal(key): meaning for meaning, keys in named for key in keys}, says


@dataclass(frozen=True)
class _Reading:
    """A configuration, and what each of its settings is read against."""

    file: Path
    contract: Contract
    tokens: Tokens | None
    says: Mapping[str, Mapping[str, str | bool]]
    settings: Sequence[Setting]

    def of(self, meaning: str) -> list[Setting]:
        return [one for one in self.settings if one.meaning == meaning and one.value is not None]

    def findings(self, setting: Setting) -> Iterator[Finding]:
        """What one setting says, each with its line and the setting quoted."""
        quoted = f"{'.'.join(setting.path)}: {reprlib.repr(setting.value)}"
        where = f"{self.file}:{setting.line}"
        is_template = setting.key == "template" and re.search(r"[{\n]", setting.text)
        meaning = setting.meaning
        if setting.is_about("label", "annotat") and meaning != "label_names":
            meaning = "labelling"
        elif meaning == "prompt" or (meaning == "template" and is_template):
            yield from self._prompt(setting, where)
            return
        for aspect, value, note in self._said(setting, meaning):
            yield Finding(aspect, _SIDE, value, where, f"{quoted}; {note}" if note else quoted)

    def sampling(self) -> Iterator[Finding]:
        """What `generate` is asked for, table by table."""
        of_table: dict[tuple[str, ...], list[Setting]] = {}
        for setting in self.of("sampling"):
            of_table.setdefault(setting.path[:-1], []).append(setting)
        for table in of_table.values():
            if not _SWITCHES.isdisjoint(one.key for one in table):
                value = values.sampling({one.key: one.value for one in table})
                note = ", ".join(f"{'.'.join(one.path)}: {one.value}" for one in table)
                yield Finding("sampling", _SIDE, value, f"{self.file}:{table[0].line}", note)

    def _in_table(self, meaning: str, setting: Setting) -> Value | None:
        """What the setting says in the table of its meaning; a number above 0 is a yes."""
        weight = values.number(setting.value)
        is_on = values.truth(setting.value) if weight is None else weight > 0
        word = setting.text if is_on is None else "yes" if is_on else "no"
        return self.says.get(meaning, {}).get(word)

    def _said(self, setting: Setting, meaning: str) -> Iterator[_Said]:
        """What the setting says by its meaning; meanings of `[says]` need no more than a look."""
        value, contract, key = setting.value, self.contract, setting.key
        whole, found = values.whole(value), self._in_table(meaning, setting)
        match meaning:
            case "labelling":  # the pictures that the labels were made on
                is_size = any(word in key for word in _LABEL_SIZES)
                same = values.is_square(value, contract.pixels.size) if is_size else None
                if same is not None:
                    yield "label_image", "as the model sees it" if same else "another picture", ""
            case "size":
                is_image = key != "size" or setting.is_about("image", "img", "vision", "resize")
                if is_image and (sides := values.sides(value)):
                    yield "image_size", max(sides), ""
            case "padding":  # alone it may as well be about sequences of tokens
                is_bare = key in ("padding", "fill", "background", "pad_mode", "padding_mode")
                is_image = setting.is_about(*_OF_IMAGES) or setting.text in values.COLOURS
                colour = values.colour(value) if is_image or not is_bare else None
                if colour is not None:
                    yield "padding", colour, ""
            case "resize":  # of the pictures, or of the processor's tiles
                aspect = "tile_resize" if setting.is_about("processor") else "resize"
                yield aspect, values.filter_name(value), ""
            case "normalisation":
                yield from self._normalisation(setting)
            case "template":
                if found is not None or isinstance(value, str):
                    yield "chat_template", found or value, ""
            case "dataset_type":  # Axolotl's conversations, where no template is named beside them
                named = [one for one in self.of("template") if one.key == "chat_template"]
                if value == "chat_template" and "datasets" in setting.path and not named:
                    yield "chat_template", "the checkpoint's", ""
            case "images" | "limit" if whole is not None:
                yield "max_tokens" if meaning == "limit" else "images_per_prompt", whole, ""
            case "label_names":
                known = contract.answer.labels
                is_list = isinstance(value, list) and all(isinstance(one, str) for one in value)
                if is_list and value and not _COLUMNS.issuperset(value):
                    yield "labels", known if set(value) == set(known) else tuple(value), ""
            case "length":
                yield from self._length(setting)
            case _ if found is not None:
                yield str(self.says[meaning]["aspect"]), found, ""

    def _normalisation(self, setting: Setting) -> Iterator[_Said]:
        """A mean or a deviation against the checkpoint's; a single number is every channel's."""
        found = values.numbers(setting.value)
        is_ours = setting.is_about("image", "normal", "transform", "processor", "pixel")
        if found is None or (setting.key in ("mean", "std") and not is_ours):
            return
        own = self.tokens.settings if self.tokens else {}
        wanted = own.get("image_std" if "std" in setting.key else "image_mean") or [0.5] * 3
        pairs = zip(found * 3 if len(found) == 1 else found, wanted, strict=False)
        same = len(found) in (1, len(wanted)) and all(abs(a - b) < 1e-4 for a, b in pairs)
        said = "the checkpoint's" if same else f"{setting.key} {found}"
        yield "normalisation", said, "" if same else f"not {wanted}"

    def _prompt(self, setting: Setting, where: str) -> Iterator[Finding]:
        """A prompt, or a template of one: the labels filled in, the answer cut off."""
        if not isinstance(setting.value, str):
            return
        text = _ANSWER.split(setting.value)[0]
        text = _LABELS.sub(", ".join(self.contract.answer.labels), text)
        text = _CONTEXT.sub(r"\1...", text)
        unknown = [name for name in _VARIABLE.findall(text) if name not in ("image", "media")]
        has_token = self.tokens is not None
        for found in prompt_parts.findings(text, _SIDE, where, self.contract, has_token):
            if unknown and found.aspect == "prompt_words":
                note = f"the trainer decides what {{{unknown[0]}}} becomes"
                yield Finding("prompt_words", _SIDE, None, where, note)
            elif found.aspect != "chat_template" or found.value != "none":
                yield found

    def _length(self, setting: Setting) -> Iterator[_Said]:
        """The length of a sequence: what it cuts of an example; `generate`'s counts the prompt."""
        generates = setting.is_about("generat", "gen_", "inference", "decod", "predict")
        if setting.key == "generation_max_length" or (setting.key == "max_length" and generates):
            yield "limit_counts_prompt", True, "`generate` counts the prompt in"
            return
        note = "a sequence length, which limits prompt and answer in training, not generation"
        yield "max_tokens", None, note
        truncates = all(values.truth(one.value) is not False for one in self.of("truncation"))
        room, tokens = setting.value, self.tokens
        if not isinstance(room, int) or not truncates:
            return
        if tokens is None:
            least = _IMAGE_TOKENS + len(self.contract.prompt.text.split())
            if room < least:
                note = f"{_IMAGE_TOKENS} image tokens of SmolVLM's, and one or more for every word"
                yield "sequence", f"cuts examples of {least} tokens or more", note
            return
        said = [self._in_table("tiling", one) for one in self.of("tiling")]
        contract = tokens.trained_under(self.contract, said[0] == "split" if any(said) else None)
        prompt = tokens.prompt(contract)
        lost = prompt.image_tokens - prompt.ids[:room].count(prompt.image_id)
        whole = len(prompt.ids) + tokens.longest_answer(self.contract)
        value = "whole"
        if lost:
            value = f"cuts {lost:,} of {prompt.image_tokens:,} image tokens"
        elif whole > room:
            value = f"cuts {whole - room:,} of {whole:,} tokens, the answer first"
        note = f"an example is {len(prompt.ids):,} prompt tokens ({contract.tiling}) and the answer"
        yield "sequence", value, note


def _normal(key: str) -> str:
    """A key as all are compared: lower case, `_` for `-`."""
    return key.strip().lower().replace("-", "_")


def _settings_of(file: Path, meanings: Mapping[str, str]) -> list[Setting]:
    form = {".toml": "TOML", ".json": "JSON"}.get(file.suffix.lower(), "YAML")
    try:
        text = tables.text_of(file)
        if form == "YAML":
            parsed: object = yaml_text.loads(text)
        else:
            parsed = loads(text) if form == "TOML" else files.json_of(text)
    except TableError as error:
        raise AuditError(f"{file}: cannot be read: {error}") from error
    except ValueError as error:
        raise AuditError(f"{file}: not {form}: {' '.join(str(error).split())}") from error
    found = list(_Walk(text, meanings).settings(parsed))
    if not found:
        raise AuditError(f"{file}: no settings are in it; give a trainer's YAML, TOML or JSON")
    return found


class _Walk:
    """Goes through a configuration once, in the order of its keys, and finds the line of each."""

    def __init__(self, text: str, meanings: Mapping[str, str]) -> None:
        self._text, self._meanings, self._at = _COMMENT.sub(r"\1", text), meanings, 0

    def settings(self, table: object, path: tuple[str, ...] = ()) -> Iterator[Setting]:
        if isinstance(table, list):
            for item in table:
                yield from self.settings(item, path)
        for key, value in table.items() if isinstance(table, dict) else ():
            line, name = self._line(str(key)), _normal(str(key))
            parts = value if isinstance(value, list) else [value]
            if any(isinstance(part, dict | list) for part in parts):
                yield from self.settings(value, (*path, name))
            else:
                said = str(value) if isinstance(value, date | time) else value
                yield Setting((*path, name), said, line, self._meanings.get(name, ""))

    def _line(self, key: str) -> int:
        pattern = re.compile(rf"(?<![\w-]){re.escape(key)}[\"']?\s*[:=.\]]")
        # A key that YAML merges in, or a table that TOML opens again, stands further up.
        match = pattern.search(self._text, self._at) or pattern.search(self._text)
        if match is None:
            return 1
        self._at = max(self._at, match.end())
        return self._text.count("\n", 0, match.start()) + 1
