"""What a trainer's configuration says: keys found by what they mean, in the dialects below.

| aspect | keys |
| --- | --- |
| image_size | image_size, resolution, img_size, longest_edge, target_size, crop_size, size |
| prompt | prompt, prompt_template, instruction, question, user_prompt, prompt_text, `template` |
| max_tokens | max_new_tokens, max_tokens, max_output_tokens, max_completion_length |
| limit_counts_prompt | generation_max_length; max_length inside a generation table |
| (no limit) | max_length, max_seq_length, cutoff_len, sequence_len, model_max_length |
| sampling | do_sample, temperature, top_p, top_k, num_beams |
| resize | resample, interpolation, image_resize_algorithm, resize_method |
| tile_resize | resample of an (image) processor |
| padding | padding_color, pad_color, fill, background, pad_value; keep_aspect_ratio, resize_mode |
| tiling | do_image_splitting, image_splitting, split_image, tiling |
| normalisation | image_mean, image_std, mean, std |
| loss | train_on_prompt, train_on_inputs, mask_prompt, completion_only_loss, assistant_only_loss |
| chat_template | chat_template, apply_chat_template, LLaMA-Factory's template, Axolotl's type |
| end_token | add_eos_token, append_eos, train_on_eos |
| output | target_template, answer_template |
| labels | labels, classes, class_names |
| others | channel_order, exif_transpose, centering, alpha, include_context, label_resolution |

Every other key is left alone and counted. HF TrainingArguments, TRL, Axolotl and LLaMA-Factory
write these keys; so do most trainers of one's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from harness.audit import sampling
from harness.audit.findings import Finding
from harness.audit.train_config import readers, values
from harness.audit.train_config.file import Setting, read
from harness.audit.train_config.readers import Scope
from harness.contract import Contract

_SIDE: Final = "train-config"

_SAMPLING: Final = ("do_sample", "temperature", "top_p", "top_k", "min_p", "num_beams")
_PROMPTS: Final = (
    "prompt",
    "prompt_template",
    "prompt_text",
    "user_prompt",
    "instruction",
    "question",
    "query",
)
_LIMITS: Final = (
    "max_new_tokens",
    "generation_max_new_tokens",
    "max_tokens",
    "max_output_tokens",
    "max_completion_length",
)
_SEQUENCE: Final = (
    "max_length",
    "max_seq_length",
    "max_seq_len",
    "cutoff_len",
    "sequence_len",
    "sequence_length",
    "model_max_length",
    "block_size",
)


def findings(
    file: Path,
    contract: Contract,
    *,
    image_texts: Sequence[str] = (),
    normalisation: tuple[list[float], list[float]] = ([0.5] * 3, [0.5] * 3),
) -> Iterator[Finding]:
    """What the configuration in `file` says.

    `image_texts` are the texts that the checkpoint's tokenizer takes for the image; `normalisation`
    its processor's mean and deviation, by default SmolVLM's.

    Raises:
        AuditError: the file is none of YAML, TOML and JSON.
    """
    scope = Scope(file, contract, image_texts, normalisation)
    settings = read(file)
    yield from _sampling(scope, settings)
    named = any(one.key == "chat_template" and one.value is not None for one in settings)
    for setting in settings:
        if setting.key != "type" or not named:
            yield from _of(scope, setting)


def unread(file: Path, contract: Contract) -> int:
    """How many settings of `file` say nothing about any aspect."""
    scope = Scope(file, contract, (), ([], []))
    return sum(
        1
        for setting in read(file)
        if setting.key not in _SAMPLING and not any(True for _ in _of(scope, setting))
    )


def _of(scope: Scope, setting: Setting) -> Iterator[Finding]:
    if setting.value is None:
        return
    if values.is_about(setting, "label", "annotat"):
        yield from readers.labelling(scope, setting)
        return
    for keys, reader in _READERS:
        if setting.key in keys:
            yield from reader(scope, setting)
            return


def _sampling(scope: Scope, settings: Sequence[Setting]) -> Iterator[Finding]:
    tables: dict[tuple[str, ...], list[Setting]] = {}
    for setting in settings:
        if setting.key in _SAMPLING and setting.value is not None:
            tables.setdefault(setting.path[:-1], []).append(setting)
    for found in tables.values():
        if not {"do_sample", "temperature", "num_beams"}.isdisjoint({one.key for one in found}):
            value = sampling.spoken({one.key: one.value for one in found})
            note = ", ".join(f"{one.name}: {one.value}" for one in found)
            yield Finding("sampling", _SIDE, value, scope.where(found[0]), note)


_Reader = Callable[[Scope, Setting], Iterator[Finding]]
_READERS: Final[tuple[tuple[tuple[str, ...], _Reader], ...]] = (
    (
        (
            "image_size",
            "img_size",
            "image_resolution",
            "resolution",
            "longest_edge",
            "image_longest_edge",
            "target_size",
            "input_size",
            "crop_size",
            "resize_to",
            "image_resize",
            "size",
        ),
        readers.size,
    ),
    (("image_max_pixels", "max_pixels"), readers.bound),
    (_PROMPTS, readers.prompt),
    (_LIMITS, readers.limit),
    ((*_SEQUENCE, "generation_max_length"), readers.length),
    (
        (
            "resample",
            "resampling",
            "interpolation",
            "image_resize_algorithm",
            "resize_algorithm",
            "resize_method",
            "resize_filter",
        ),
        readers.resize,
    ),
    (
        (
            "padding_color",
            "padding_colour",
            "pad_color",
            "pad_colour",
            "padding_value",
            "pad_value",
            "image_padding",
            "background_color",
            "fill_color",
            "letterbox_color",
            "padding_mode",
            "pad_mode",
            "padding",
            "fill",
            "background",
        ),
        readers.padding,
    ),
    (("keep_aspect_ratio", "preserve_aspect_ratio"), readers.aspect_ratio),
    (("resize_mode", "fit"), readers.mode),
    (
        (
            "do_image_splitting",
            "image_splitting",
            "split_image",
            "split_images",
            "do_split",
            "tiling",
            "do_pan_and_scan",
        ),
        readers.tiling,
    ),
    (("image_mean", "image_std", "mean", "std", "norm_mean", "norm_std"), readers.normalisation),
    (
        (
            "train_on_prompt",
            "train_on_inputs",
            "train_on_input",
            "train_on_source",
            "loss_on_prompt",
            "prompt_loss_weight",
        ),
        readers.on_prompt,
    ),
    (
        (
            "mask_prompt",
            "mask_inputs",
            "mask_input",
            "mask_prompts",
            "completion_only_loss",
            "assistant_only_loss",
            "answer_only_loss",
            "train_on_responses_only",
            "response_only",
            "loss_on_answer_only",
            "only_train_on_response",
        ),
        readers.on_answer,
    ),
    (
        (
            "chat_template",
            "apply_chat_template",
            "use_chat_template",
            "conversation_template",
            "chat_template_path",
            "template",
        ),
        readers.template,
    ),
    (("type",), readers.dataset_type),
    (("add_eos_token", "add_eos", "append_eos", "append_eos_token", "train_on_eos"), readers.ends),
    (
        ("target_template", "answer_template", "response_template_text", "target_format"),
        readers.target,
    ),
    (("labels", "classes", "class_names", "label_names", "elements"), readers.label_names),
    (("channel_order", "color_order", "color_mode", "channels"), readers.channels),
    (("exif_transpose", "apply_exif", "use_exif"), readers.exif),
    (("centering", "centring", "alignment", "align"), readers.centring),
    (("alpha", "alpha_mode", "alpha_handling"), readers.alpha),
    (("include_context", "use_context", "add_context", "include_reason"), readers.context),
    (("images_per_prompt", "images_per_sample", "num_images"), readers.images),
)
