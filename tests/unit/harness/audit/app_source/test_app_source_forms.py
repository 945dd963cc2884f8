# ruff: noqa: E501  (source code is quoted as it stands in an app)
"""Other forms of the same thing: each as a small source of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from .edits import read

SCREEN = """
class Screen(private val vlm: Vlm) : Activity() {{
    override fun onCreate(state: Bundle?) {{
        val bitmap = BitmapFactory.decodeFile("/sdcard/a.jpg")
        val answer = vlm.see(drawn(bitmap, 256), "<__media__>\\nwater, land, fire, wood, metal?")
        show(answer)
    }}
    private fun drawn(bitmap: Bitmap, side: Int): Bitmap {{
        {body}
    }}
}}
class Vlm {{ external fun see(image: Bitmap, prompt: String): String }}
"""
_FIT = "val s = minOf(side.toFloat() / bitmap.width, side.toFloat() / bitmap.height)\n"
_SIDES = "val w = (bitmap.width * s).toInt()\n val h = (bitmap.height * s).toInt()\n"
_OUT = "val out = Bitmap.createBitmap(side, side, Bitmap.Config.ARGB_8888)\n val canvas = Canvas(out)\n"

DRAWINGS = {
    "a rectangle and a filtering paint": (
        _FIT + _SIDES + _OUT + "canvas.drawColor(Color.BLACK)\n val x = (side - w) / 2f\n"
        "canvas.drawBitmap(bitmap, null, RectF(x, 0f, x + w, h.toFloat()), Paint(Paint.FILTER_BITMAP_FLAG))\n"
        "return out",
        {"resize": "android", "centring": "float", "image_size": 256, "padding": "black"},
    ),
    "a rectangle of whole numbers and no paint": (
        _FIT + _SIDES + _OUT + "val x = (side - w) / 2\n"
        "canvas.drawBitmap(bitmap, null, Rect(x, 0, x + w, h), null)\n return out",
        {"resize": None, "centring": "integer", "padding": "black"},
    ),
    "a matrix": (
        _FIT + _OUT + "canvas.drawColor(Color.WHITE)\n val m = Matrix()\n m.setScale(s, s)\n"
        "m.postTranslate((side - bitmap.width * s) / 2f, 0f)\n"
        "canvas.drawBitmap(bitmap, m, Paint().apply { isFilterBitmap = true })\n return out",
        {"resize": "android", "centring": "float", "padding": "white", "image_size": 256},
    ),
    "a painted ground": (
        _FIT + _SIDES + _OUT + "val p = Paint()\n p.color = Color.WHITE\n canvas.drawPaint(p)\n"
        "canvas.drawBitmap(Bitmap.createScaledBitmap(bitmap, w, h, true), 0f, 0f, null)\n return out",
        {"padding": "white", "centring": "top-left", "resize": "android"},
    ),
    "an erased bitmap": (
        _FIT + _SIDES + _OUT + 'out.eraseColor(Color.parseColor("#FFFFFF"))\n'
        "canvas.drawBitmap(Bitmap.createScaledBitmap(bitmap, w, h, true), 0f, 0f, null)\n return out",
        {"padding": "white"},
    ),
    "nothing drawn under it": (
        _FIT
        + _SIDES
        + _OUT
        + "canvas.drawBitmap(Bitmap.createScaledBitmap(bitmap, w, h, true), 0f, 0f, null)\n return out",
        {"padding": "black"},
    ),
    "the shorter side": (
        "val s = 64f / minOf(bitmap.width, bitmap.height)\n"
        "return Bitmap.createScaledBitmap(bitmap, (bitmap.width * s).toInt(), (bitmap.height * s).toInt(), true)",
        {"image_size": 64, "padding": "none", "centring": None},
    ),
    "the width alone": (
        "if (bitmap.width <= side) return bitmap\n val s = side.toFloat() / bitmap.width\n"
        "return Bitmap.createScaledBitmap(bitmap, side, (bitmap.height * s).toInt(), true)",
        {"image_size": 256, "padding": "none", "size_arithmetic": "float32"},
    ),
    "a thumbnail": (
        "return ThumbnailUtils.extractThumbnail(bitmap, 256, 256)",
        {"resize": "ThumbnailUtils, cropped", "image_size": 256, "padding": "none"},
    ),
    "twice": (
        "val half = Bitmap.createScaledBitmap(bitmap, 512, 512, true)\n return again(half)\n }\n"
        "private fun again(b: Bitmap): Bitmap {\n return Bitmap.createScaledBitmap(b, 256, 256, true)",
        {"resize": "android, twice"},
    ),
}


@pytest.mark.parametrize("name", sorted(DRAWINGS))
def test_a_drawing_is_read_without_the_native_code_beside_it(name: str, tmp_path: Path) -> None:
    body, expected = DRAWINGS[name]
    (tmp_path / "Screen.kt").write_text(SCREEN.format(body=body))
    found = read(tmp_path)
    assert {key: found[key].value for key in expected} == expected
    assert found["prompt_words"].value == "water, land, fire, wood, metal?"


def test_a_side_that_is_fitted_alone_is_named(tmp_path: Path) -> None:
    body, _ = DRAWINGS["the width alone"]
    (tmp_path / "Screen.kt").write_text(SCREEN.format(body=body))
    assert read(tmp_path)["image_size"].note.startswith("the width is scaled to it")


@pytest.mark.parametrize("call", ["open(2048)", "this.open(2048)", "self().inner.open(2048)"])
def test_a_denied_call_is_a_call(call: str, tmp_path: Path) -> None:
    (tmp_path / "M.kt").write_text(
        "class M : Activity() {\n  external fun open(room: Int): Boolean\n"
        f"  override fun onCreate(s: Bundle?) {{\n    if (!{call}) return\n  }}\n"
        "  private val inner: M = this\n  private fun self(): M = this\n}\n"
    )
    (tmp_path / "m.cpp").write_text(
        'extern "C" JNIEXPORT jboolean JNICALL Java_a_M_open(JNIEnv *e, jobject, jint room) {\n'
        "  llama_context_params p = llama_context_default_params();\n  p.n_ctx = room;\n"
        "  return llama_init_from_model(model, p) != nullptr;\n}\n"
    )
    assert read(tmp_path)["context"].value == 2048


NATIVE = """
static std::string text_of(const std::string &question) {{ return std::string("<__media__>\\n") + question; }}
extern "C" JNIEXPORT jstring JNICALL Java_a_B_run(JNIEnv *env, jobject, jobject bitmap) {{
    {body}
}}
"""
_TOKENIZE = (
    "mtmd_input_text in; in.text = text.c_str(); in.add_special = true; in.parse_special = true;"
    "mtmd_tokenize(v, chunks, &in, list, 1); llama_pos n_past = 0;"
    "mtmd_helper_eval_chunks(v, ctx, chunks, 0, 0, 512, true, &n_past);"
)
_SAMPLED = "llama_token id = llama_sampler_sample(smpl, ctx, -1); if (llama_vocab_is_eog(vocab, id)) break;"

LOOPS = {
    "a counter from nothing": (f"for (int i = 0; i < 48; ++i) {{ {_SAMPLED} }}", 48, False),
    "a counter from one": (f"for (int i = 1; i <= 48; i++) {{ {_SAMPLED} }}", 48, False),
    "positions from the prompt's end": (
        f"int n_len = n_past + 48; while (n_past < n_len) {{ {_SAMPLED} n_past++; }}",
        48,
        False,
    ),
    "positions from the first": (
        f"const int n_len = 48; while (n_past < n_len) {{ {_SAMPLED} n_past += 1; }}",
        48,
        True,
    ),
    "what remains": (f"int left = 48; while (left > 0) {{ {_SAMPLED} left--; }}", 48, False),
    "a break": (
        f"int n = 0; while (true) {{ {_SAMPLED} if (++n >= 48) break; }}",
        48,
        False,
    ),
    "the room that is left": (
        f"while (n_past < llama_n_ctx(ctx)) {{ {_SAMPLED} n_past++; }}",
        None,
        None,
    ),
}


@pytest.mark.parametrize("name", sorted(LOOPS))
def test_a_generation_loop_is_read_by_how_it_counts(name: str, tmp_path: Path) -> None:
    loop, tokens, counts = LOOPS[name]
    body = f'std::string text = text_of("What?"); {_TOKENIZE} {loop} return nullptr;'
    (tmp_path / "b.cpp").write_text(NATIVE.format(body=body))
    found = read(tmp_path)
    assert (found["max_tokens"].value, found["limit_counts_prompt"].value) == (tokens, counts)


def test_settings_in_common_params_are_read(tmp_path: Path) -> None:
    body = (
        "common_params params; params.n_ctx = 2048; params.n_batch = 256;"
        "params.cache_type_k = GGML_TYPE_Q8_0; params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_DISABLED;"
        "params.cpuparams.n_threads = 3; params.n_gpu_layers = 0; params.sampling.temp = 0.0f;"
        "auto init = common_init_from_params(params);"
        "auto *smpl = common_sampler_init(model, params.sampling); return nullptr;"
    )
    (tmp_path / "b.cpp").write_text(NATIVE.format(body=body))
    found = read(tmp_path)
    expected = {
        "context": 2048, "batch": 256, "cache_type_k": "q8_0", "cache_type_v": "f16",
        "flash_attention": False, "threads": 3, "sampling": "greedy", "backend": "cpu",
    }  # fmt: skip
    assert {key: found[key].value for key in expected} == expected


def test_a_template_that_llama_cpp_applies_is_named(tmp_path: Path) -> None:
    body = (
        'std::string text(512, 0); llama_chat_message m[] = {{"user", "<__media__>"}};'
        f"llama_chat_apply_template(nullptr, m, 1, true, text.data(), 512); {_TOKENIZE} return nullptr;"
    )
    (tmp_path / "b.cpp").write_text(
        NATIVE.replace("{body}", body).replace("{{", "{").replace("}}", "}")
    )
    template = read(tmp_path)["chat_template"]
    assert template.value == "the model's own, applied by llama_chat_apply_template"
    assert template.where == "b.cpp:4"


def test_a_template_taken_in_place_of_the_models_own_is_named(tmp_path: Path) -> None:
    body = (
        'auto t = common_chat_templates_init(model, "vicuna"); common_chat_templates_inputs in_chat;'
        "auto made = common_chat_templates_apply(t.get(), in_chat); std::string text = made.prompt;"
        f"{_TOKENIZE} return nullptr;"
    )
    (tmp_path / "b.cpp").write_text(NATIVE.format(body=body))
    template = read(tmp_path)["chat_template"]
    assert template.value == "vicuna, applied by common_chat_templates_apply"


def test_a_native_function_whose_private_method_nothing_calls_does_not_count(
    tmp_path: Path,
) -> None:
    (tmp_path / "V.kt").write_text(
        "class V {\n  private external fun run(prompt: String): Int\n"
        "  private external fun count(prompt: String): Int\n"
        '  fun see(): Int = run("<__media__>\\nWhat?")\n}\n'
    )
    native = (
        'extern "C" JNIEXPORT jint JNICALL Java_a_V_{name}(JNIEnv *env, jobject, jstring prompt) {{\n'
        "  const char *text = env->GetStringUTFChars(prompt, nullptr);\n"
        "  mtmd_input_text in; in.text = text; in.add_special = {special}; in.parse_special = true;\n"
        "  return mtmd_tokenize(v, chunks, &in, list, 1);\n}}\n"
    )
    (tmp_path / "v.cpp").write_text(
        native.format(name="run", special="true") + native.format(name="count", special="false")
    )
    assert read(tmp_path)["add_special"].value is True


def test_of_a_prompt_with_a_typed_question_the_rest_is_told(tmp_path: Path) -> None:
    (tmp_path / "S.kt").write_text(
        SCREEN.format(body="return bitmap").replace(
            '"<__media__>\\nwater, land, fire, wood, metal?"', '"<image>" + field.text + " "'
        )
    )
    found = read(tmp_path)
    assert found["marker"].value == "<image> as text"
    assert found["prompt_end"].value == " "
    assert found["prompt_words"].value is None
    assert "set at run time" in found["prompt_words"].note


def test_what_is_handed_to_a_library_is_read_by_its_names(tmp_path: Path) -> None:
    (tmp_path / "A.kt").write_text(
        "class A : Activity() {\n"
        "    private val llama = LlamaHelper(this)\n"
        "    override fun onCreate(state: Bundle?) {\n"
        '        llama.load("elements-q5_k_m.gguf", nCtx = 4096, nThreads = 2)\n'
        '        llama.generate(prompt = "Say water.", maxTokens = 128, temperature = 0.4f)\n'
        "    }\n}\n"
    )
    found = read(tmp_path)
    expected = {"context": 4096, "threads": 2, "max_tokens": 128, "sampling": "temperature 0.4"}
    assert {key: found[key].value for key in expected} == expected
    assert "not in this source" in found["max_tokens"].note
    assert found["weights"].value == "q5_k_m"


def test_a_fall_back_in_a_catch_is_found(tmp_path: Path) -> None:
    (tmp_path / "a.cpp").write_text(
        'extern "C" JNIEXPORT jlong JNICALL Java_a_M_open(JNIEnv *e, jobject, jint layers) {\n'
        "  llama_model_params p = llama_model_default_params();\n  p.n_gpu_layers = layers;\n"
        "  return (jlong) llama_model_load_from_file(path, p);\n}\n"
    )
    source = (
        "class M : Activity() {{\n  external fun open(layers: Int): Long\n"
        "  override fun onCreate(s: Bundle?) {{\n"
        "    try {{ open(99) }} catch (e: Exception) {{ {handler} open(0) }}\n  }}\n}}\n"
    )
    for handler, expected in (('Log.w("M", "no GPU")', "silent"), ("_state.value = Slow", "told")):
        (tmp_path / "M.kt").write_text(source.format(handler=handler + "\n"))
        found = read(tmp_path)
        assert (found["backend"].value, found["gpu_fallback"].value) == (None, expected)
