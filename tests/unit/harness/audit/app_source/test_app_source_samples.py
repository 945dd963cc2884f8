"""Whole apps, differently laid out: what is read of each, and where."""

from __future__ import annotations

from pathlib import Path

import pytest

from .edits import (
    ALIGNED,
    APPS,
    CLASSIFIER,
    ENGINE,
    LLAMA,
    MANAGER,
    VISION,
    edited,
    mismatches,
    read,
)


def test_the_app_as_shipped_exchanges_red_and_blue_and_ships_another_mmproj() -> None:
    found = read(APPS / "as_shipped")
    assert mismatches(found) == {
        "channels": "bgr",
        "mmproj": "stock SmolVLM2-500M-Video-Instruct",
    }
    assert found["channels"].where.startswith(f"{VISION}:4")
    assert "red and blue are exchanged" in found["channels"].note
    assert found["gpu_fallback"].value == "silent"
    assert found["backend"].value is None


def test_under_its_own_contract_the_app_as_shipped_has_no_channel_mismatch() -> None:
    assert "channels" not in mismatches(read(APPS / "as_shipped"), "as-shipped")


def test_an_aligned_app_gives_no_mismatch(tmp_path: Path) -> None:
    found = read(edited(tmp_path, "as_shipped", *ALIGNED))
    assert mismatches(found) == {}
    assert [key for key, finding in found.items() if finding.value is None] == []


def test_every_finding_of_the_app_as_shipped_says_where_it_stands() -> None:
    where = {key: finding.where for key, finding in read(APPS / "as_shipped").items()}
    lines = {
        "image_size": (MANAGER, "TARGET_IMAGE_SIZE = 256"),
        "resize": (MANAGER, "createScaledBitmap(bitmap, scaledWidth"),
        "padding": (MANAGER, "drawColor"),
        "centring": (MANAGER, "/ 2f"),
        "prompt_words": (CLASSIFIER, "PROMPT ="),
        "answer_reading": (CLASSIFIER, "answer.contains"),
        "max_tokens": (LLAMA, "while (ncur.value < maxTokens)"),
        "sampling": (ENGINE, "init_greedy"),
        "context": (ENGINE, "n_ctx"),
        "cache_type_k": (ENGINE, "type_k"),
        "vision_threads": (VISION, "n_threads = 4"),
        "weights": (MANAGER, "MODEL_FILE ="),
    }
    for key, (file, text) in lines.items():
        name, line = where[key].rsplit(":", 1)
        assert name == file
        assert text in (APPS / "as_shipped" / file).read_text().splitlines()[int(line) - 1], key


JAVA = {
    "image_size": 512, "padding": "white", "resize": "nearest", "centring": "integer",
    "size_arithmetic": "float64, rounded", "exif": True, "channels": "rgb", "alpha": "dropped",
    "marker": "image token", "after_marker": "", "prompt_end": " ", "add_special": False,
    "parse_special": True, "sampling": "temperature 0.2", "max_tokens": 64,
    "limit_counts_prompt": False, "answer_reading": "word", "session_images": 3, "context": 2048,
    "batch": 128, "cache_type_k": "q8_0", "cache_type_v": "f16", "flash_attention": False,
    "threads": "cores - 1", "vision_threads": 2, "backend": "cpu", "gpu_fallback": "none",
    "weights": "q4_k_m", "mmproj": "of this checkpoint",
}  # fmt: skip

NATIVE_CLASS = {
    "image_size": 64, "padding": "none", "resize": "android", "centring": None, "exif": True,
    "channels": "bgr", "alpha": "composited", "marker": "image token", "context_block": True,
    "chat_template": "<|im_start|>user\n{prompt}<end_of_utterance>\nAssistant:",
    "parse_special": False, "images_per_prompt": 1, "sampling": "greedy", "max_tokens": 24,
    "limit_counts_prompt": True, "answer_reading": "contains", "cache_cleared": False,
    "labels": ("fire", "water", "land", "wood", "metal"), "context": 768, "batch": 64,
    "flash_attention": None, "threads": "clamp(cores / 2, 2, 6)", "backend": "gpu",
    "gpu_fallback": "silent", "session_images": None, "weights": "f16",
}  # fmt: skip

ONE_FILE = {
    "image_size": None, "channels": "rgb", "after_marker": "\n", "prompt_end": "",
    "sampling": "greedy", "max_tokens": 16, "limit_counts_prompt": False,
    "answer_reading": "contains", "context": 1024, "cache_type_k": "f16", "cache_type_v": "f16",
    "flash_attention": False, "threads": 4, "cache_cleared": False, "weights": "q8_0",
}  # fmt: skip


@pytest.mark.parametrize(
    ("app", "expected"),
    [
        pytest.param("java_app", JAVA, id="Java, getPixels and C, values through JNI arguments"),
        pytest.param("native_class", NATIVE_CLASS, id="a C++ class and registered natives"),
        pytest.param("one_file", ONE_FILE, id="one native file and no Kotlin at all"),
        pytest.param(
            "settings_object", {"batch": 256}, id="an object of settings, behind an interface"
        ),
    ],
)
def test_the_layout_of_the_source_does_not_matter(app: str, expected: dict[str, object]) -> None:
    found = read(APPS / app)
    assert {key: found[key].value for key in expected} == expected


def test_settings_in_an_object_are_followed_through_an_interface_and_jni() -> None:
    found = read(APPS / "settings_object")
    assert mismatches(found) == {"batch": 256}
    assert [key for key, finding in found.items() if finding.value is None] == []
    assert "Screen.kt" in found["batch"].note


def test_what_could_not_be_read_says_why() -> None:
    for app in ("native_class", "one_file"):
        for finding in read(APPS / app).values():
            assert finding.value is not None or len(finding.note) > 10, finding
