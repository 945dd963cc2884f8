# ruff: noqa: E501  (source code is quoted as it stands in an app)
"""Channel order by what a loop computes: words, bytes, colour ints, libraries."""

from __future__ import annotations

from pathlib import Path

import pytest

from .edits import read

NATIVE = """
#include <jni.h>
#define R_OF(p) (((p) >> 16) & 0xff)
static inline uint8_t low(uint32_t p) {{ return p & 0xff; }}
struct Px {{ uint8_t r; uint8_t g; uint8_t b; uint8_t a; }};
extern "C" JNIEXPORT void JNICALL Java_a_B_c(JNIEnv *env, jobject, jobject bitmap, int w, int h) {{
    void *pixels;
    AndroidBitmap_lockPixels(env, bitmap, &pixels);
    std::vector<uint8_t> rgb(w * h * 3);
    {loop}
    mtmd_bitmap *made = mtmd_bitmap_init(w, h, rgb.data());
}}
"""

LOOPS = {
    "a word's bits 16..23 first": (
        "auto *p = (uint32_t *) pixels; for (int i = 0; i < w * h; i++) { uint32_t v = p[i];"
        "rgb[3*i] = (v >> 16) & 0xFF; rgb[3*i+1] = (v >> 8) & 0xFF; rgb[3*i+2] = v & 0xFF; }",
        "bgr",
    ),
    "a word's bits 0..7 first": (
        "auto *p = (uint32_t *) pixels; for (int i = 0; i < w * h; i++) { uint32_t v = p[i];"
        "rgb[3*i] = v & 0xFF; rgb[3*i+1] = (v >> 8) & 0xFF; rgb[3*i+2] = (v >> 16) & 0xFF; }",
        "rgb",
    ),
    "masks before shifts": (
        "auto *p = (uint32_t *) pixels; for (int i = 0; i < w * h; i++) {"
        "rgb[3*i] = (p[i] & 0x00FF0000) >> 16; rgb[3*i+1] = (p[i] & 0x0000FF00) >> 8;"
        "rgb[3*i+2] = (p[i] & 0x000000FF); }",
        "bgr",
    ),
    "named parts, pushed back": (
        "const uint32_t *line = static_cast<const uint32_t *>(pixels); rgb.clear();"
        "for (int i = 0; i < w * h; i++) { const uint32_t argb = line[i];"
        "uint8_t r = (argb >> 16) & 0xff; uint8_t g = (argb >> 8) & 0xff; uint8_t b = argb & 0xff;"
        "rgb.push_back(r); rgb.push_back(g); rgb.push_back(b); }",
        "bgr",
    ),
    "bytes in order": (
        "auto *p = static_cast<uint8_t *>(pixels); for (int i = 0; i < w * h; i++) {"
        "rgb[i*3+0] = p[i*4+0]; rgb[i*3+1] = p[i*4+1]; rgb[i*3+2] = p[i*4+2]; }",
        "rgb",
    ),
    "bytes turned round": (
        "auto *p = static_cast<uint8_t *>(pixels); for (int i = 0; i < w * h; i++) {"
        "rgb[i*3+0] = p[i*4+2]; rgb[i*3+1] = p[i*4+1]; rgb[i*3+2] = p[i*4+0]; }",
        "bgr",
    ),
    "rows with a stride": (
        "for (int y = 0; y < h; ++y) { auto row = static_cast<const unsigned char *>(pixels) + y * stride;"
        "for (int x = 0; x < w; ++x) { const size_t o = (size_t(y) * w + x) * 3;"
        "rgb[o] = row[x * 4]; rgb[o + 1] = row[x * 4 + 1]; rgb[o + 2] = row[x * 4 + 2]; } }",
        "rgb",
    ),
    "pointers that walk": (
        "const uint8_t *src = (const uint8_t *) pixels; uint8_t *dst = rgb.data();"
        "for (int i = 0; i < w * h; i++) { *dst++ = *src++; *dst++ = *src++; *dst++ = *src++; src++; }",
        "rgb",
    ),
    "pointers that step": (
        "const uint8_t *src = (const uint8_t *) pixels; uint8_t *dst = rgb.data();"
        "for (int i = 0; i < w * h; i++) { dst[0] = src[2]; dst[1] = src[1]; dst[2] = src[0]; src += 4; dst += 3; }",
        "bgr",
    ),
    "a loop over channels": (
        "auto *p = (uint8_t *) pixels; for (int i = 0; i < w * h; i++)"
        "for (int c = 0; c < 3; c++) rgb[i * 3 + c] = p[i * 4 + c];",
        "rgb",
    ),
    "a loop over channels, turned round": (
        "auto *p = (uint8_t *) pixels; for (int i = 0; i < w * h; i++)"
        "for (int c = 0; c < 3; c++) rgb[i * 3 + c] = p[i * 4 + 2 - c];",
        "bgr",
    ),
    "three bytes copied": (
        "auto *p = (uint8_t *) pixels; for (int i = 0; i < w * h; i++) memcpy(&rgb[i * 3], p + i * 4, 3);",
        "rgb",
    ),
    "a macro and a function": (
        "auto *p = (uint32_t *) pixels; for (int i = 0; i < w * h; i++) {"
        "rgb[i*3] = R_OF(p[i]); rgb[i*3+1] = (p[i] >> 8) & 0xff; rgb[i*3+2] = low(p[i]); }",
        "bgr",
    ),
    "a struct over the bytes": (
        "auto *p = (Px *) pixels; for (int i = 0; i < w * h; i++) { Px q = p[i];"
        "rgb[i*3] = q.r; rgb[i*3+1] = q.g; rgb[i*3+2] = q.b; }",
        "rgb",
    ),
    "OpenCV, by the right name": (
        "cv::Mat rgba(h, w, CV_8UC4, pixels), out; cv::cvtColor(rgba, out, cv::COLOR_RGBA2RGB);",
        "rgb",
    ),
    "OpenCV, for its own order": (
        "cv::Mat rgba(h, w, CV_8UC4, pixels), out; cv::cvtColor(rgba, out, cv::COLOR_RGBA2BGR);",
        "bgr",
    ),
    "OpenCV, by the wrong name": (
        "cv::Mat rgba(h, w, CV_8UC4, pixels), out; cv::cvtColor(rgba, out, cv::COLOR_BGRA2RGB);",
        "bgr",
    ),
    "libyuv": ("libyuv::ABGRToRAW(px, stride, rgb.data(), w * 3, w, h);", "rgb"),
}


@pytest.mark.parametrize("name", sorted(LOOPS))
def test_a_native_loop_is_read_by_what_it_computes(name: str, tmp_path: Path) -> None:
    loop, expected = LOOPS[name]
    (tmp_path / "native.cpp").write_text(NATIVE.format(loop=loop))
    found = read(tmp_path)["channels"]
    assert found.value == expected, found.note


KOTLIN = """
class Vlm : Activity() {{
    external fun see(rgb: ByteArray, w: Int, h: Int)
    override fun onCreate(state: Bundle?) {{
        val bitmap = BitmapFactory.decodeFile(path)
        val rgb = ByteArray(bitmap.width * bitmap.height * 3)
        {loop}
        see(rgb, bitmap.width, bitmap.height)
    }}
}}
"""
BYTES = """
extern "C" JNIEXPORT void JNICALL Java_a_Vlm_see(JNIEnv *env, jobject, jbyteArray rgb, jint w, jint h) {
    jbyte *data = env->GetByteArrayElements(rgb, nullptr);
    mtmd_bitmap_init(w, h, (const unsigned char *) data);
}
"""
KOTLIN_LOOPS = {
    "colour ints": (
        "val px = IntArray(9)\n bitmap.getPixels(px, 0, 3, 0, 0, 3, 3)\n for (i in px.indices) {\n"
        "val p = px[i]\n rgb[i * 3] = ((p shr 16) and 0xFF).toByte()\n"
        "rgb[i * 3 + 1] = ((p shr 8) and 0xFF).toByte()\n rgb[i * 3 + 2] = (p and 0xFF).toByte()\n }",
        "rgb",
    ),
    "colour ints, blue first": (
        "val px = IntArray(9)\n bitmap.getPixels(px, 0, 3, 0, 0, 3, 3)\n for (i in px.indices) {\n"
        "rgb[i * 3] = (px[i] and 0xFF).toByte()\n rgb[i * 3 + 1] = (px[i] shr 8 and 0xFF).toByte()\n"
        "rgb[i * 3 + 2] = (px[i] shr 16 and 0xFF).toByte()\n }",
        "bgr",
    ),
    "colour ints, one by one": (
        "val px = IntArray(9)\n bitmap.getPixels(px, 0, 3, 0, 0, 3, 3)\n var o = 0\n"
        "for (p in px) {\n rgb[o++] = ((p shr 16) and 0xFF).toByte()\n"
        "rgb[o++] = ((p shr 8) and 0xFF).toByte()\n rgb[o++] = (p and 0xFF).toByte()\n }",
        "rgb",
    ),
    "Color.red": (
        "var o = 0\n for (y in 0 until 3) for (x in 0 until 3) {\n val p = bitmap.getPixel(x, y)\n"
        "rgb[o++] = Color.red(p).toByte()\n rgb[o++] = Color.green(p).toByte()\n"
        "rgb[o++] = Color.blue(p).toByte()\n }",
        "rgb",
    ),
}


@pytest.mark.parametrize("name", sorted(KOTLIN_LOOPS))
def test_a_kotlin_loop_is_read_by_what_it_computes(name: str, tmp_path: Path) -> None:
    loop, expected = KOTLIN_LOOPS[name]
    (tmp_path / "Vlm.kt").write_text(KOTLIN.format(loop=loop))
    (tmp_path / "vlm.cpp").write_text(BYTES)
    found = read(tmp_path)["channels"]
    assert found.value == expected, found.note


def test_a_buffer_made_under_a_try_is_followed(tmp_path: Path) -> None:
    source = KOTLIN.format(loop=KOTLIN_LOOPS["colour ints"][0])
    made = "val rgb = ByteArray(bitmap.width * bitmap.height * 3)\n"
    tried = "val rgb = try { made(bitmap) } catch (e: Error) { null } ?: return\n"
    head, _, rest = source.partition(made)
    loop, _, tail = rest.partition("        see(")
    source = f"{head}{tried}        see({tail.rstrip().removesuffix('}')}"
    source += (
        f"    private fun made(bitmap: Bitmap): ByteArray {{\n{made}{loop}\nreturn rgb\n}}\n}}\n"
    )
    (tmp_path / "Vlm.kt").write_text(source)
    (tmp_path / "vlm.cpp").write_text(BYTES)
    found = read(tmp_path)["channels"]
    assert found.value == "rgb", found.note


def test_a_loop_that_cannot_be_read_is_not_guessed(tmp_path: Path) -> None:
    loop = "convert_with_neon(static_cast<uint8_t *>(pixels), rgb.data(), w * h);"
    (tmp_path / "native.cpp").write_text(NATIVE.format(loop=loop))
    found = read(tmp_path)["channels"]
    assert found.value is None
    assert "could not be read" in found.note
