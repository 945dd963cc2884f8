"""What one setting of a trainer says about one aspect; each reader knows one meaning."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from harness.audit import prompt_parts, targets
from harness.audit.findings import Finding, Value
from harness.audit.train_config import values
from harness.audit.train_config.file import Setting
from harness.contract import Contract

if TYPE_CHECKING:
    from harness.audit.tokens import Tokens

_SIDE: Final = "train-config"
_TILING: Final = frozenset({"do_image_splitting", "image_splitting", "split_image", "tiling"})
_COLUMNS: Final = frozenset({"labels", "label", "label_ids", "start_positions", "end_positions"})


@dataclass(frozen=True)
class Scope:
    """What every setting is read against."""

    file: Path
    contract: Contract
    image_texts: Sequence[str]
    normalisation: tuple[list[float], list[float]]
    tokens: Tokens | None = None
    """The checkpoint's tokenizer, where there is one to hold a sequence length against."""
    settings: tuple[Setting, ...] = ()
    """All of the file."""

    def where(self, setting: Setting) -> str:
        """`file:line`."""
        return f"{self.file}:{setting.line}"

    def finding(
        self, aspect: str, setting: Setting, value: Value | None, note: str = ""
    ) -> Finding:
        """A finding that quotes the setting."""
        said = f"{setting.name}: {values.shown(setting.value)}"
        return Finding(
            aspect, _SIDE, value, self.where(setting), f"{said}; {note}" if note else said
        )


def size(scope: Scope, setting: Setting) -> Iterator[Finding]:
    """The side of the images, where a `size` is one of images."""
    side = values.side(setting.value)
    if setting.key == "size" and not values.is_about(setting, "image", "img", "vision", "resize"):
        return
    if side is not None:
        yield scope.finding("image_size", setting, side)


def bound(scope: Scope, setting: Setting) -> Iterator[Finding]:
    """A bound on the pixels of an image; one that the contract's square keeps to says nothing."""
    pixels = setting.value
    if isinstance(pixels, int) and 1 < pixels < scope.contract.pixels.size**2:
        yield scope.finding("image_size", setting, round(pixels**0.5), "an upper bound")


def prompt(scope: Scope, setting: Setting) -> Iterator[Finding]:
    """A prompt, or a template of one: the labels filled in, the answer cut off."""
    if not isinstance(setting.value, str):
        return
    text, unknown = values.filled(setting.value, scope.contract.answer.labels)
    where = scope.where(setting)
    for found in prompt_parts.findings(text, _SIDE, where, scope.contract, scope.image_texts):
        if unknown and found.aspect == "prompt_words":
            note = f"what {{{unknown}}} becomes is the trainer's to say"
            yield Finding("prompt_words", _SIDE, None, where, note)
        elif found.aspect != "chat_template" or found.value != "none":
            yield found


def limit(scope: Scope, setting: Setting) -> Iterator[Finding]:
    """How many tokens may be generated."""
    if isinstance(setting.value, int) and not isinstance(setting.value, bool):
        yield scope.finding("max_tokens", setting, setting.value)


def length(scope: Scope, setting: Setting) -> Iterator[Finding]:
    """A length of whole sequences: what it cuts of the prompt, and whether it is `generate`'s own,
    which counts the prompt in."""
    generates = values.is_about(setting, "generat", "gen_", "inference", "decod", "predict")
    if setting.key == "generation_max_length" or (setting.key == "max_length" and generates):
        yield scope.finding("limit_counts_prompt", setting, True, "`generate` counts the prompt in")
        return
    note = "a sequence length, which limits prompt and answer in training, not generation"
    yield scope.finding("max_tokens", setting, None, note)
    if scope.tokens is not None and isinstance(setting.value, int) and _truncates(scope):
        yield _cut(scope, setting, setting.value, scope.tokens)


def _truncates(scope: Scope) -> bool:
    return all(
        values.truth(one.value) is not False for one in scope.settings if one.key == "truncation"
    )


def _cut(scope: Scope, setting: Setting, room: int, tokens: Tokens) -> Finding:
    """What of prompt and answer does not fit into `room` tokens."""
    split = [
        found.value == "split"
        for one in scope.settings
        for found in (tiling(scope, one) if one.key in _TILING else ())
    ]
    contract = tokens.trained_under(scope.contract, split[0] if split else None)
    prompt = tokens.prompt(contract)
    lost = prompt.image_tokens - prompt.ids[:room].count(prompt.image_id)
    answer = 1 + max(
        len(tokens.tokenizer.encode(label, add_special_tokens=False))
        for label in scope.contract.answer.labels
    )
    whole = len(prompt.ids) + answer
    value = "whole"
    if lost:
        value = f"cuts {lost:,} of {prompt.image_tokens:,} image tokens"
    elif whole > room:
        value = f"cuts {whole - room:,} of {whole:,} tokens, the answer first"
    note = f"an example is {len(prompt.ids):,} prompt tokens ({contract.tiling}) and the answer"
    return scope.finding("sequence", setting, value, note)


def resize(scope: Scope, setting: Setting) -> Iterator[Finding]:
    """A resize filter: of the pictures, or of the processor's tiles."""
    name = values.filter_name(setting.value)
    aspect = "tile_resize" if values.is_about(setting, "processor") else "resize"
    yield scope.finding(aspect, setting, name)


def padding(scope: Scope, setting: Setting) -> Iterator[Finding]:
    """A padding colour; `padding` alone may as well be of token sequences."""
    about_images = values.is_about(setting, "image", "img", "pixel", "transform", "preprocess")
    if setting.key in ("padding", "fill", "background", "pad_mode", "padding_mode"):
        named = isinstance(setting.value, str) and setting.value.lower() in values.COLOURS
        if not about_images and not named:
            return
    if (colour := values.colour(setting.value)) is not None:
        yield scope.finding("padding", setting, colour)


def aspect_ratio(scope: Scope, setting: Setting) -> Iterator[Finding]:
    """Whether a picture keeps its shape."""
    keeps = values.truth(setting.value)
    if keeps is False:
        yield scope.finding("padding", setting, "none", "the picture is pulled to the square")


def mode(scope: Scope, setting: Setting) -> Iterator[Finding]:
    """How a picture gets square."""
    if str(setting.value).lower() in ("stretch", "squash", "crop", "center_crop", "cover"):
        yield scope.finding("padding", setting, "none")


def tiling(scope: Scope, setting: Setting) -> Iterator[Finding]:
    """Whether the processor splits images."""
    split = values.truth(setting.value)
    if split is None and setting.value in ("single", "split"):
        split = setting.value == "split"
    if split is not None:
        yield scope.finding("tiling", setting, "split" if split else "single")


def normalisation(scope: Scope, setting: Setting) -> Iterator[Finding]:
    """A mean or a deviation against the checkpoint's."""
    numbers = values.numbers(setting.value)
    if numbers is None:
        return
    if setting.key in ("mean", "std") and not values.is_about(
        setting, "image", "normal", "transform", "processor", "pixel"
    ):
        return
    own = scope.normalisation["std" in setting.key]
    wanted = own if len(numbers) == len(own) else own[:1]
    same = len(numbers) == len(wanted) and all(
        abs(a - b) < 1e-4 for a, b in zip(numbers, wanted, strict=True)
    )
    said = "the checkpoint's" if same else f"{setting.key} {numbers}"
    yield scope.finding("normalisation", setting, said, "" if same else f"not {wanted}")


def on_prompt(scope: Scope, setting: Setting) -> Iterator[Finding]:
    """The loss covers the prompt if this is set."""
    value = setting.value
    if isinstance(value, int | float) and not isinstance(value, bool):
        yield scope.finding("loss", setting, "prompt too" if value > 0 else "answer")
    elif (trains := values.truth(value)) is not None:
        yield scope.finding("loss", setting, "prompt too" if trains else "answer")


def on_answer(scope: Scope, setting: Setting) -> Iterator[Finding]:
    """The loss covers the answer alone if this is set."""
    alone = values.truth(setting.value)
    if setting.key == "assistant_only_loss" and not alone:
        yield scope.finding("loss", setting, None, "TRL's default; it alone does not decide")
    elif alone is not None:
        yield scope.finding("loss", setting, "answer" if alone else "prompt too")


def template(scope: Scope, setting: Setting) -> Iterator[Finding]:
    """A chat template by its name, its text, or switched on and off."""
    value = setting.value
    if isinstance(value, str) and setting.key == "template" and ("{" in value or "\n" in value):
        yield from prompt(scope, setting)
        return
    used = values.truth(value)
    if used is False or (isinstance(value, str) and value.lower() in values.NO_TEMPLATE):
        yield scope.finding("chat_template", setting, "none")
    elif used is True:
        yield scope.finding("chat_template", setting, "the checkpoint's")
    elif isinstance(value, str):
        yield scope.finding("chat_template", setting, value)


def dataset_type(scope: Scope, setting: Setting) -> Iterator[Finding]:
    """Axolotl's way of writing a dataset's conversations."""
    if setting.value == "chat_template" and "datasets" in setting.path:
        yield scope.finding("chat_template", setting, "the checkpoint's")


def ends(scope: Scope, setting: Setting) -> Iterator[Finding]:
    """Whether targets get an end token that the loss covers."""
    value = setting.value
    if setting.key == "train_on_eos":
        yield scope.finding("end_token", setting, str(value).lower() not in ("none", "false"))
    elif (added := values.truth(value)) is not None:
        yield scope.finding("end_token", setting, added)


def target(scope: Scope, setting: Setting) -> Iterator[Finding]:
    """The form of a target around the label."""
    if not isinstance(setting.value, str):
        return
    label = scope.contract.answer.labels[0]
    written = values.ANSWER.sub(label, setting.value)
    if written == setting.value:
        return
    read_back = targets.read(written, scope.contract.answer.labels)
    yield scope.finding("output", setting, read_back.form)
    if read_back.ends:
        yield scope.finding("end_token", setting, True)


def label_names(scope: Scope, setting: Setting) -> Iterator[Finding]:
    """The labels themselves; transformers' own `label_names` are columns of a batch."""
    found = setting.value
    if isinstance(found, list) and _COLUMNS.issuperset(map(str, found)):
        return
    if isinstance(found, list) and found and all(isinstance(name, str) for name in found):
        same = set(found) == set(scope.contract.answer.labels)
        yield scope.finding(
            "labels", setting, scope.contract.answer.labels if same else tuple(found)
        )


def channels(scope: Scope, setting: Setting) -> Iterator[Finding]:
    """The order of red and blue."""
    order = str(setting.value).lower()
    if order in ("rgb", "bgr"):
        yield scope.finding("channels", setting, order)


def exif(scope: Scope, setting: Setting) -> Iterator[Finding]:
    """Whether EXIF orientation turns the picture."""
    if (applied := values.truth(setting.value)) is not None:
        yield scope.finding("exif", setting, applied)


def context(scope: Scope, setting: Setting) -> Iterator[Finding]:
    """Whether prompts have a context block."""
    if (included := values.truth(setting.value)) is not None:
        yield scope.finding("context_block", setting, included)


def images(scope: Scope, setting: Setting) -> Iterator[Finding]:
    """How many images one prompt has."""
    if isinstance(setting.value, int) and not isinstance(setting.value, bool):
        yield scope.finding("images_per_prompt", setting, setting.value)


def labelling(scope: Scope, setting: Setting) -> Iterator[Finding]:
    """A key about how the labels were made."""
    if setting.key in ("labels", "label_names"):
        yield from label_names(scope, setting)
        return
    words = ("size", "resolution", "width", "image", "pixels", "edge")
    if not any(word in setting.key for word in words):
        return
    side = values.side(setting.value)
    if side is not None:
        same = side == scope.contract.pixels.size
    elif isinstance(setting.value, str):
        same = not any(word in setting.value.lower() for word in ("full", "original", "native"))
        if same and "prepared" not in setting.value.lower():
            return
    else:
        return
    yield scope.finding(
        "label_image", setting, "as the model sees it" if same else "another picture"
    )
