# ruff: noqa: E501  (source code is quoted as it stands in an app)
"""Planted misalignments: one small edit of the aligned app, and the row that names it."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import contract as contracts
from harness.audit import app_source

from .edits import (
    ACTIVITY,
    ALIGNED,
    CLASSIFIER,
    ENGINE,
    LLAMA,
    MANAGER,
    VISION,
    Edit,
    edited,
    mismatches,
    read,
)

_WORD_LOOP = """            rgb[idx * 3 + 0] = rgba & 0xFF;
            rgb[idx * 3 + 1] = (rgba >> 8) & 0xFF;
            rgb[idx * 3 + 2] = (rgba >> 16) & 0xFF;
"""
_CONTAINS = """        for (word in words) {
            if (answer.contains(word)) {
                return word
            }
        }
        return null
"""
_GREEDY = "    llama_sampler_chain_add(smpl, llama_sampler_init_greedy());"
_LOOP = "while (ncur.value < maxTokens)"

VARIANTS: dict[str, tuple[Edit, dict[str, object]]] = {
    "a larger picture": (Edit(MANAGER, "SIZE = 256", "SIZE = 512"), {"image_size": 512}),
    "a size by arithmetic": (Edit(MANAGER, "SIZE = 256", "SIZE = 3 shl 7"), {"image_size": 384}),
    "white padding": (Edit(MANAGER, "Color.BLACK", "Color.WHITE"), {"padding": "white"}),
    "a hexadecimal white": (
        Edit(MANAGER, "Color.BLACK", "0xFFFFFFFF.toInt()"),
        {"padding": "white"},
    ),
    "grey by its parts": (
        Edit(MANAGER, "Color.BLACK", "Color.rgb(114, 114, 114)"),
        {"padding": "#727272"},
    ),
    "no filter": (
        Edit(MANAGER, "scaledHeight, true)", "scaledHeight, false)"),
        {"resize": "nearest"},
    ),
    "whole-number centring": (
        Edit(
            MANAGER, "(targetSize - scaledWidth) / 2f", "((targetSize - scaledWidth) / 2).toFloat()"
        ),
        {"centring": "integer"},
    ),
    "top-left": (
        Edit(MANAGER, "drawBitmap(scaled, left, top, null)", "drawBitmap(scaled, 0f, 0f, null)"),
        {"centring": "top-left"},
    ),
    "double sizes": (
        Edit(
            MANAGER,
            "            targetSize.toFloat() / width,\n            targetSize.toFloat() / height",
            "            targetSize.toDouble() / width,\n            targetSize.toDouble() / height",
        ),
        {"size_arithmetic": "float64"},
    ),
    "rounded sizes": (
        Edit(MANAGER, "(width * scaleFactor).toInt()", "(width * scaleFactor).roundToInt()"),
        {"size_arithmetic": "float32, rounded"},
    ),
    "stretched": (
        Edit(
            MANAGER,
            "resizeForModel(bitmap, TARGET_IMAGE_SIZE)",
            "Bitmap.createScaledBitmap(bitmap, 256, 256, true)",
        ),
        {"padding": "none"},
    ),
    "not resized": (
        Edit(MANAGER, "resizeForModel(bitmap, TARGET_IMAGE_SIZE)", "bitmap"),
        {"resize": "none", "padding": "none"},
    ),
    "subsampled": (
        Edit(
            MANAGER,
            "BitmapFactory.decodeStream(input)",
            "BitmapFactory.decodeStream(input, null, BitmapFactory.Options().apply { inSampleSize = 4 })",
        ),
        {"resize": "android after inSampleSize"},
    ),
    "EXIF by ImageDecoder": (
        Edit(
            MANAGER,
            "BitmapFactory.decodeStream(input)",
            "ImageDecoder.decodeBitmap(ImageDecoder.createSource(context.contentResolver, uri))",
        ),
        {"exif": True},
    ),
    "red and blue exchanged": (
        Edit(
            VISION,
            _WORD_LOOP,
            _WORD_LOOP.replace("rgba & 0xFF", "X")
            .replace("(rgba >> 16) & 0xFF", "rgba & 0xFF")
            .replace("X", "(rgba >> 16) & 0xFF"),
        ),
        {"channels": "bgr"},
    ),
    "bytes in reverse": (
        Edit(
            VISION,
            _WORD_LOOP,
            "            auto *b = reinterpret_cast<uint8_t *>(&rgba_pixels[idx]);\n            uint8_t *out = &rgb[idx * 3];\n            *out++ = b[2];\n            *out++ = b[1];\n            *out++ = b[0];\n",
        ),
        {"channels": "bgr"},
    ),
    "swapped afterwards": (
        Edit(
            VISION,
            _WORD_LOOP,
            _WORD_LOOP + "            std::swap(rgb[idx * 3], rgb[idx * 3 + 2]);\n",
        ),
        {"channels": "bgr"},
    ),
    "no newline after the marker": (
        Edit(MANAGER, "$IMAGE_MARKER\\n$prompt", "$IMAGE_MARKER$prompt"),
        {"after_marker": ""},
    ),
    "a space after the marker, by concatenation": (
        Edit(MANAGER, '"$IMAGE_MARKER\\n$prompt"', 'IMAGE_MARKER + " " + prompt'),
        {"after_marker": " "},
    ),
    "another marker": (
        Edit(MANAGER, 'IMAGE_MARKER = "<__media__>"', 'IMAGE_MARKER = "<image>"'),
        {"marker": "<image> as text"},
    ),
    "no marker": (Edit(MANAGER, "$IMAGE_MARKER\\n$prompt", "$prompt"), {"marker": "missing"}),
    "a trailing space": (Edit(CLASSIFIER, 'Element:"""', 'Element: """'), {"prompt_end": " "}),
    "a context block": (
        Edit(CLASSIFIER, 'Element:"""', 'Context: a photo\n\nElement:"""'),
        {"context_block": True},
    ),
    "other words": (
        Edit(
            CLASSIFIER,
            '"""Classify this image into one of these elements:',
            '"""Which of these is it:',
        ),
        {"prompt_words": "Which of these is it: water, land, fire, wood, metal.\n\nElement:"},
    ),
    "a chat template written out": (
        Edit(
            MANAGER,
            '"$IMAGE_MARKER\\n$prompt"',
            '"<|im_start|>User:$IMAGE_MARKER\\n$prompt<end_of_utterance>\\nAssistant:"',
        ),
        {"chat_template": "<|im_start|>User:{prompt}<end_of_utterance>\nAssistant:"},
    ),
    "no special tokens": (
        Edit(VISION, "add_special = true", "add_special = false"),
        {"add_special": False},
    ),
    "special tokens not parsed": (
        Edit(VISION, "parse_special = true", "parse_special = false"),
        {"parse_special": False},
    ),
    "a larger limit": (Edit(LLAMA, "nlen: Int = 32", "nlen: Int = 128"), {"max_tokens": 128}),
    "a limit that counts the prompt": (
        Edit(LLAMA, "val maxTokens = newNPast.toInt() + nlen", "val maxTokens = nlen * 8"),
        {"max_tokens": 256, "limit_counts_prompt": True},
    ),
    "a temperature": (
        Edit(
            ENGINE,
            _GREEDY,
            "    llama_sampler_chain_add(smpl, llama_sampler_init_temp(0.7f));\n    llama_sampler_chain_add(smpl, llama_sampler_init_dist(LLAMA_DEFAULT_SEED));",
        ),
        {"sampling": "temperature 0.7"},
    ),
    "drawn by chance": (
        Edit(ENGINE, _GREEDY, "    llama_sampler_chain_add(smpl, llama_sampler_init_dist(7));"),
        {"sampling": "temperature 1.0"},
    ),
    "an equal word": (
        Edit(CLASSIFIER, _CONTAINS, "        return words.find { it == answer }\n"),
        {"answer_reading": "word"},
    ),
    "labels in another order": (
        Edit(CLASSIFIER, '"water", "land", "fire"', '"fire", "land", "water"'),
        {"labels": ("fire", "land", "water", "wood", "metal")},
    ),
    "one word tried before containment": (
        Edit(
            CLASSIFIER,
            "        for (word in words) {\n",
            '        if (answer == "land") return "land"\n        for (word in words) {\n',
        ),
        {
            "answer_reading": "word, then contains",
            "labels": ("land", "water", "fire", "wood", "metal"),
        },
    ),
    "a smaller context": (Edit(ENGINE, "= 1024;", "= 512;"), {"context": 512}),
    "keys in Q8_0": (
        Edit(ENGINE, "type_k          = GGML_TYPE_Q4_0", "type_k          = GGML_TYPE_Q8_0"),
        {"cache_type_k": "q8_0"},
    ),
    "values as they are": (
        Edit(ENGINE, "    ctx_params.type_v          = GGML_TYPE_Q4_0;\n", ""),
        {"cache_type_v": "f16"},
    ),
    "no flash attention": (
        Edit(ENGINE, "ATTN_TYPE_ENABLED", "ATTN_TYPE_DISABLED"),
        {"flash_attention": False},
    ),
    "no flash attention, in an older llama.cpp": (
        Edit(ENGINE, "flash_attn_type = LLAMA_FLASH_ATTN_TYPE_ENABLED", "flash_attn = false"),
        {"flash_attention": False},
    ),
    "another rule for threads": (
        Edit(
            ENGINE,
            "std::max(2, std::min(6, (int) sysconf(_SC_NPROCESSORS_ONLN) / 2))",
            "std::max(1, std::min(8, (int) sysconf(_SC_NPROCESSORS_ONLN) - 2))",
        ),
        {"threads": "clamp(cores - 2, 1, 8)"},
    ),
    "threads as they are given, if they are": (
        Edit(
            ENGINE,
            "    ctx_params.n_threads       = n_threads;",
            "    int given = std::max(2, std::min(4, (int) sysconf(_SC_NPROCESSORS_ONLN)));\n"
            "    ctx_params.n_threads = given > 0 ? given : 4;",
        ),
        {"threads": "clamp(cores, 2, 4)"},
    ),
    "a number of threads": (
        Edit(ENGINE, "std::max(2, std::min(6, (int) sysconf(_SC_NPROCESSORS_ONLN) / 2))", "8"),
        {"threads": 8},
    ),
    "more vision threads": (
        Edit(VISION, "params.n_threads = 4", "params.n_threads = 8"),
        {"vision_threads": 8},
    ),
    "two photographs": (
        Edit(ACTIVITY, "PHOTOS_PER_READING = 3", "PHOTOS_PER_READING = 2"),
        {"session_images": 2},
    ),
    "a cache that is kept": (
        Edit(
            LLAMA,
            "                    emit(str)\n                }\n                kv_cache_clear(state.context)\n            }\n            else -> throw",
            "                    emit(str)\n                }\n            }\n            else -> throw",
        ),
        {"cache_cleared": False},
    ),
    "weights of another type": (
        Edit(MANAGER, "elements-smolvlm2-500m-q8_0.gguf", "elements-smolvlm2-500m-Q4_K_M.gguf"),
        {"weights": "q4_k_m"},
    ),
    "the base model's mmproj": (
        Edit(
            MANAGER, "mmproj-elements-smolvlm2-500m-f16", "mmproj-SmolVLM2-500M-Video-Instruct-f16"
        ),
        {"mmproj": "stock SmolVLM2-500M-Video-Instruct"},
    ),
}


_KEPT = VARIANTS["a cache that is kept"][0]
_CHAT = Edit(
    ACTIVITY,
    "        showAvatar()\n",
    '        showAvatar()\n        lifecycleScope.launch { manager.ask("hello").collect { } }\n',
)


@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_a_planted_misalignment_is_named_and_nothing_else_is(name: str, tmp_path: Path) -> None:
    edit, expected = VARIANTS[name]
    found = read(edited(tmp_path, "as_shipped", *ALIGNED, edit))
    assert mismatches(found) == expected


def test_a_bound_that_is_one_too_large_is_held_by_the_native_one(tmp_path: Path) -> None:
    edit = Edit(LLAMA, "while (ncur.value < maxTokens)", "while (ncur.value <= maxTokens)")
    assert read(edited(tmp_path, "as_shipped", edit))["max_tokens"].value == 32
    again = Edit(ENGINE, " || n_cur == n_len", "")
    found = read(edited(tmp_path / "unbound", "as_shipped", edit, again))
    assert found["max_tokens"].value == 33


def test_a_context_and_an_evaluation_of_different_batches_are_both_said(tmp_path: Path) -> None:
    folder = edited(tmp_path, "as_shipped", Edit(ENGINE, "= 512;", "= 128;"))
    found = app_source.read(folder, contracts.load("default"))
    assert [f.value for f in found if f.aspect == "batch"] == [128, 512]


def test_a_fall_back_that_tells_the_app_is_no_silent_one(tmp_path: Path) -> None:
    told = 'env->CallVoidMethod(thiz, on_fallback); LOGw("no OpenCL device'
    folder = edited(tmp_path, "as_shipped", Edit(ENGINE, 'LOGw("no OpenCL device', told))
    assert read(folder)["gpu_fallback"].value == "told"


def test_a_cache_that_the_text_chat_clears_is_not_said_to_be_cleared_for_images(
    tmp_path: Path,
) -> None:
    found = read(edited(tmp_path, "as_shipped", _KEPT, _CHAT))["cache_cleared"]
    assert found.value is None
    assert "could not be followed" in found.note


def test_q8_in_a_files_name_is_the_one_file_type_of_8_bits(tmp_path: Path) -> None:
    edit = Edit(MANAGER, "elements-smolvlm2-500m-q8_0.gguf", "elements_smolvlm2_q8.gguf")
    assert read(edited(tmp_path, "as_shipped", edit))["weights"].value == "q8_0"


def test_a_warm_up_clears_no_cache_between_images(tmp_path: Path) -> None:
    warm_up = Edit(
        ENGINE,
        "    return reinterpret_cast<jlong>(context);",
        "    llama_memory_clear(llama_get_memory(context), true);\n"
        "    return reinterpret_cast<jlong>(context);",
    )
    assert read(edited(tmp_path, "as_shipped", _KEPT, warm_up))["cache_cleared"].value is False


def test_a_model_that_the_rest_of_the_app_loads_is_read_all_the_same(tmp_path: Path) -> None:
    load = Edit(ACTIVITY, "        lifecycleScope.launch { manager.initialize() }\n", "")
    found = read(edited(tmp_path, "as_shipped", *ALIGNED, load))
    assert mismatches(found) == {}
    assert (found["context"].value, found["weights"].value) == (1024, "q8_0")


@pytest.mark.parametrize(
    "made",
    [
        "mtmd::bitmap made(width, height, rgb.data());",
        "mtmd::bitmap made{width, height, rgb.data()};",
        "auto made = mtmd::bitmap(width, height, rgb.data());",
    ],
)
def test_a_bitmap_of_libmtmds_cpp_classes_is_one(made: str, tmp_path: Path) -> None:
    edit = Edit(
        VISION,
        "    return reinterpret_cast<jlong>(mtmd_bitmap_init(width, height, rgb.data()));",
        f"    {made}\n    return reinterpret_cast<jlong>(made.ptr.release());",
    )
    assert read(edited(tmp_path, "as_shipped", edit))["channels"].value == "bgr"
