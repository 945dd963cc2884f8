"""The drifts that a real app had against its own description: each is found from a few lines.

What one line states is read; of the others a person takes the `#` off one line.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from driftloop.harness import contract as contracts
from driftloop.harness.audit import app
from driftloop.harness.audit.findings import Value
from driftloop.harness.audit.rows import rows

KOTLIN = """package com.acme.elements

class VlmManager(private val context: Context) {{
{}
}}
"""
NATIVE = """#include "mtmd.h"

void f(JNIEnv *env, jobject bitmap, int n_len) {{
{}
}}
"""
PIXELS = """    AndroidBitmap_lockPixels(env, bitmap, &pixels);
    uint32_t *rgba = static_cast<uint32_t *>(pixels);
    for (int i = 0; i < n; i++) {
        rgb[i * 3 + 0] = (rgba[i] >> 16) & 0xFF;
        rgb[i * 3 + 1] = (rgba[i] >> 8) & 0xFF;
        rgb[i * 3 + 2] = rgba[i] & 0xFF;
    }
    mtmd_bitmap_init(width, height, rgb.data());"""
RESIZE = """    fun resizeForVlm(bitmap: Bitmap): Bitmap {
        val scale = minOf(SIDE.toFloat() / bitmap.width, SIDE.toFloat() / bitmap.height)
        val width = (bitmap.width * scale).toInt()
        val height = (bitmap.height * scale).toInt()
        val scaled = Bitmap.createScaledBitmap(bitmap, width, height, true)
        val padded = Bitmap.createBitmap(SIDE, SIDE, Bitmap.Config.ARGB_8888)
        val canvas = Canvas(padded)
        canvas.drawColor(Color.BLACK)
        canvas.drawBitmap(scaled, (SIDE - width) / 2f, (SIDE - height) / 2f, null)
        return padded
    }
    private companion object { const val SIDE = 256 }"""
SMALL = """    fun resizeForVlm(bitmap: Bitmap): Bitmap {
        val scale = TARGET_SIZE.toFloat() / minOf(bitmap.width, bitmap.height)
        val width = (bitmap.width * scale).toInt()
        return Bitmap.createScaledBitmap(bitmap, width, (bitmap.height * scale).toInt(), true)
    }
    private companion object { const val TARGET_SIZE = 64 }"""
DECODE = """    fun load(uri: Uri): Bitmap? =
        context.contentResolver.openInputStream(uri)?.use { BitmapFactory.decodeStream(it) }"""
PROMPT = """    private fun visionPrompt(words: String) = "<__media__>\\n$words" """
PARSE = """    private fun parseElement(response: String): String? {
        val elements = listOf("water", "land", "fire", "wood", "metal")
        for (element in elements) if (response.contains(element)) return element
        return null
    }"""
FILES = """    private val model = "elements-smolvlm2-q8_0.gguf"
    private val mmproj = "mmproj-SmolVLM2-500M-Video-Instruct-f16.gguf" """
CONTEXT = """    llama_context_params params = llama_context_default_params();
    params.n_ctx = 1024;
    params.n_batch = 128;
    params.type_k = GGML_TYPE_Q4_0;
    params.type_v = GGML_TYPE_Q4_0;
    params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_ENABLED;
    int cores = (int) sysconf(_SC_NPROCESSORS_ONLN);
    params.n_threads = std::max(2, std::min(6, cores / 2));"""
VISION = """    mtmd_context_params params = mtmd_context_params_default();
    params.use_gpu = true;
    params.n_threads = 4;"""
LIMIT = "    const int n_predict = 24;\n    llama_decode(ctx, batch);"
COUNTED = "    while (n_cur < n_len) llama_decode(ctx, batch);"

DRIFTS: list[tuple[str, str, Value, str]] = [
    (DECODE, "exif", False, "pixels.apply_exif = true"),
    (RESIZE, "resize", "android", 'pixels.recipe = "training-lanczos"'),
    (RESIZE, "size_arithmetic", "float32", 'pixels.recipe = "training-lanczos"'),
    (RESIZE, "centring", "float", 'pixels.recipe = "training-lanczos"'),
    (SMALL, "image_size", 64, ""),
    (PIXELS, "channels", "bgr", ""),
    (PROMPT, "after_marker", "\n", 'prompt.text = "<__media__>Element:"'),
    (LIMIT, "max_tokens", 24, ""),
    (COUNTED, "limit_counts_prompt", True, ""),
    (CONTEXT, "context", 1024, "runtime.context = 2048"),
    (CONTEXT, "batch", 128, ""),
    (CONTEXT, "cache_type_k", "q4_0", 'runtime.cache_type_k = "q8_0"'),
    (CONTEXT, "cache_type_v", "q4_0", 'runtime.cache_type_v = "q8_0"'),
    (
        CONTEXT,
        "flash_attention",
        True,
        'runtime.flash_attention = false\nruntime.cache_type_v = "f16"',
    ),
    (CONTEXT, "threads", "clamp(cores / 2, 2, 6)", "runtime.threads = 4"),
    (VISION, "vision_threads", 4, "runtime.vision_threads = 2"),
    (VISION, "backend", "gpu", ""),
    (PARSE, "answer_reading", "contains", 'answer.reading = "word"'),
    (FILES, "mmproj", "stock SmolVLM2-500M-Video-Instruct", ""),
]
"""The lines, what they say, and what the description says where that is not the contract's."""
SETTLED = {"exif", "image_size", "limit_counts_prompt", "backend"}
"""What no line states for certain."""


@pytest.mark.parametrize(
    ("lines", "aspect", "value", "described"), DRIFTS, ids=[aspect for _, aspect, _, _ in DRIFTS]
)
def test_a_real_drift_is_found(
    lines: str, aspect: str, value: Value, described: str, tmp_path: Path
) -> None:
    is_native = lines in (PIXELS, CONTEXT, VISION, LIMIT, COUNTED)
    source = tmp_path / "app" / ("vlm.cpp" if is_native else "VlmManager.kt")
    source.parent.mkdir()
    source.write_text((NATIVE if is_native else KOTLIN).format(lines))
    (tmp_path / "described.toml").write_text(f'extends = "default"\nname = "x"\n{described}\n')
    contract = contracts.load(str(tmp_path / "described.toml"))
    found, _ = app.read(source.parent, contract)
    if aspect in SETTLED:
        assert {one.aspect: one.value for one in found}[aspect] is None
        file = source.parent / app.CONFIRMED_IN
        file.write_text(file.read_text().replace(f"# {aspect} = {{", f"{aspect} = {{", 1))
        found, _ = app.read(source.parent, contract)
    (row,) = (row for row in rows(found, contract) if row.aspect == aspect)
    assert (row.value, row.match) == (value, False)
