# ruff: noqa: E501  (source code is quoted as it stands in an app)
"""What counts: code that can run on the classification's way, and nothing else."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from harness import contract as contracts
from harness.audit import app_source
from harness.errors import ArmUnavailable, BadInput

from .edits import (
    ACTIVITY,
    ALIGNED,
    APPS,
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

HARMLESS = {
    "a value in a comment": Edit(MANAGER, "// 384 was too slow", "// TARGET_IMAGE_SIZE = 512"),
    "a block comment": Edit(
        ENGINE,
        "    ctx_params.n_ctx           = 1024;",
        "    /* ctx_params.n_ctx = 4096; */ ctx_params.n_ctx = 1024;",
    ),
    "code that is compiled never": Edit(
        ENGINE,
        "    llama_context *context = llama",
        "#if 0\n    ctx_params.n_ctx = 4096;\n#endif\n    llama_context *context = llama",
    ),
    "a branch that is never taken": Edit(
        MANAGER,
        "            canvas.drawColor(Color.BLACK)",
        "            if (false) canvas.drawColor(Color.WHITE)\n            canvas.drawColor(Color.BLACK)",
    ),
    "a branch a constant turns off": Edit(
        VISION,
        "    input_text.add_special = true;",
        "    if (kPlain) input_text.add_special = false; else input_text.add_special = true;",
    ),
    "an old function": Edit(
        MANAGER,
        "    /** How it was done",
        "    fun describeOld(bitmap: Bitmap): Flow<String> =\n"
        '        llama.sendWithImage("<image>What is this? ", resizeStretched(bitmap))\n\n    /** How it was done',
    ),
    "a picture for the screen": Edit(
        ACTIVITY,
        "AVATAR_SIZE, false)",
        "AVATAR_SIZE, false).also { Canvas(it).drawColor(Color.WHITE) }",
    ),
    "an unused constant": Edit(
        MANAGER,
        "        private const val MODELS_DIR",
        '        private const val OLD = "smolvlm-q4_k_m.gguf"\n        private const val MODELS_DIR',
    ),
    "a message": Edit(
        MANAGER,
        "        val file = File(File",
        '        Log.d("x", "no elements.gguf in models")\n        val file = File(File',
    ),
    "text chat, with its own limit": Edit(
        ACTIVITY,
        "        showAvatar()\n",
        '        showAvatar()\n        lifecycleScope.launch { manager.ask("hello").collect { } }\n',
    ),
    "a second prompt for a second screen": Edit(
        ACTIVITY,
        "        showAvatar()\n",
        '        showAvatar()\n        lifecycleScope.launch { manager.describe(avatar(), "Describe the picture. ").collect { } }\n',
    ),
    "map entries": Edit(
        CLASSIFIER,
        """        val words = listOf("water", "land", "fire", "wood", "metal")
        for (word in words) {
            if (answer.contains(word)) {
                return word
            }
        }
        return null
""",
        """        val words = mapOf("water" to 1, "land" to 2, "fire" to 3, "wood" to 4, "metal" to 5)
        for ((word, number) in words) {
            if (answer.contains(word)) {
                return word
            }
        }
        return null
""",
    ),
    "a when": Edit(
        CLASSIFIER,
        """        for (word in words) {
            if (answer.contains(word)) {
                return word
            }
        }
        return null
""",
        """        return when {
            "water" in answer -> "water"
            "land" in answer -> "land"
            "fire" in answer -> "fire"
            "wood" in answer -> "wood"
            answer.contains("metal", ignoreCase = true) -> "metal"
            else -> null
        }
""",
    ),
    "words compared elsewhere": Edit(
        ACTIVITY,
        '        readingView.text = words.joinToString(" - ")',
        '        for (word in words) if (word == "water" || word == "fire") readingView.text = word',
    ),
    "a value through a local": Edit(
        LLAMA,
        "val maxTokens = newNPast.toInt() + nlen",
        "val start = newNPast.toInt()\n                val room = nlen\n                val maxTokens = start + room",
    ),
}


@pytest.mark.parametrize("name", sorted(HARMLESS))
def test_what_does_not_reach_the_model_gives_no_mismatch(name: str, tmp_path: Path) -> None:
    folder = edited(tmp_path, "as_shipped", *ALIGNED, HARMLESS[name])
    if name.startswith("a branch a constant"):
        path = folder / VISION
        path.write_text("static constexpr bool kPlain = false;\n" + path.read_text())
    found = read(folder)
    assert mismatches(found) == {}
    assert found["image_size"].value == 256
    assert found["answer_reading"].value == "contains"
    assert found["max_tokens"].value == 32


def test_tests_builds_and_a_llama_cpp_checkout_are_no_part_of_the_app(tmp_path: Path) -> None:
    folder = edited(tmp_path, "as_shipped", *ALIGNED)
    white = (APPS / "as_shipped" / MANAGER).read_text().replace("BLACK", "WHITE")
    for place in (
        "app/src/androidTest/A.kt",
        "app/build/generated/B.kt",
        "cpp/llama.cpp/tools/C.kt",
    ):
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).write_text(white)
    (folder / "cpp/llama.cpp/ggml/include").mkdir(parents=True)
    assert mismatches(read(folder)) == {}


def test_a_size_two_callers_disagree_on_is_not_guessed(tmp_path: Path) -> None:
    two = Edit(
        MANAGER,
        "resizeForModel(bitmap, TARGET_IMAGE_SIZE)",
        "if (fast) resizeForModel(bitmap, 128) else resizeForModel(bitmap, 256)",
    )
    found = read(edited(tmp_path, "as_shipped", two))["image_size"]
    assert found.value is None
    assert "128" in found.note
    assert "256" in found.note


def test_a_size_from_the_preferences_is_not_guessed(tmp_path: Path) -> None:
    edit = Edit(
        MANAGER,
        "resizeForModel(bitmap, TARGET_IMAGE_SIZE)",
        'resizeForModel(bitmap, prefs.getInt("size", 256))',
    )
    found = read(edited(tmp_path, "as_shipped", edit))["image_size"]
    assert found.value is None
    assert "getInt() is not in this source" in found.note


def test_without_native_code_its_aspects_say_so(tmp_path: Path) -> None:
    folder = edited(tmp_path, "as_shipped")
    for name in (ENGINE, VISION):
        (folder / name).unlink()
    found = read(folder)
    for aspect in ("channels", "context", "cache_type_k", "sampling", "add_special"):
        assert found[aspect].value is None
        assert "live code here" in found[aspect].note or "mtmd_tokenize" in found[aspect].note


def test_reading_twice_gives_the_same() -> None:
    contract = contracts.load("default")
    folder = APPS / "native_class"
    assert app_source.read(folder, contract) == app_source.read(folder, contract)


@pytest.mark.parametrize("files", [[], ["README.md", "model.py"]])
def test_a_folder_without_an_apps_source_is_refused(files: list[str], tmp_path: Path) -> None:
    for name in files:
        (tmp_path / name).write_text("nothing")
    with pytest.raises(BadInput, match="no Kotlin, Java or C\\+\\+ file in it") as refused:
        app_source.read(tmp_path, contracts.load("default"))
    assert "\n" not in str(refused.value)


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no such folder"):
        app_source.read(tmp_path / "absent", contracts.load("default"))


def test_broken_code_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    folder = edited(
        tmp_path, "as_shipped", Edit(ACTIVITY, "private fun showAvatar() {", "private fun ( {{ ]")
    )
    assert read(folder)["context"].value == 1024


def test_without_the_grammars_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness.audit.app_source.language import syntax

    monkeypatch.setitem(sys.modules, "tree_sitter_kotlin", None)
    syntax._parser.cache_clear()
    (tmp_path / "A.kt").write_text("val a = 1")
    with pytest.raises(ArmUnavailable, match=r"pip install 'driftloop\[audit\]'"):
        app_source.read(tmp_path, contracts.load("default"))
    syntax._parser.cache_clear()
