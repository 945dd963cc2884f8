"""What lines of an app's source state: read where one value stands, else shown and not claimed."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from driftloop.harness import contract as contracts
from driftloop.harness.audit.app import scan
from driftloop.harness.errors import BadInput

from .reading import APPS, read, written

AS_SHIPPED = {
    "padding": "black", "marker": "image token", "max_tokens": 32, "sampling": "greedy",
    "images_per_prompt": 1, "after_marker": "\n", "prompt_end": "", "context_block": False,
    "chat_template": "none", "centring": "float", "channels": "bgr", "add_special": True,
    "parse_special": True, "labels": ("water", "land", "fire", "wood", "metal"),
    "answer_reading": "contains", "context": 1024, "batch": 512, "cache_type_k": "q4_0",
    "cache_type_v": "q4_0", "flash_attention": True, "threads": "clamp(cores / 2, 2, 6)",
    "vision_threads": 4, "weights": "q8_0", "mmproj": "stock SmolVLM2-500M-Video-Instruct",
    "size_arithmetic": "float32",
}  # fmt: skip

JAVA = {
    "sampling": "temperature 0.2", "images_per_prompt": 1, "prompt_end": " ", "context": 2048,
    "add_special": False, "parse_special": True, "cache_type_k": "q8_0", "vision_threads": 2,
    "flash_attention": False, "weights": "q4_k_m", "mmproj": "of this checkpoint",
    "channels": "rgb", "threads": "cores - 1",
}  # fmt: skip

NATIVE_CLASS = {
    "channels": "bgr", "parse_special": False, "batch": 64, "sampling": "greedy",
    "threads": "clamp(cores / 2, 2, 6)", "weights": "f16",
}  # fmt: skip

ONE_FILE = {
    "after_marker": "\n", "prompt_end": "", "chat_template": "none", "batch": 512,
    "cache_type_k": "f16", "cache_type_v": "f16", "flash_attention": False,
    "answer_reading": "contains", "labels": ("water", "land", "fire", "wood", "metal"),
}  # fmt: skip

BESIDE_OTHERS = {
    "marker": "image token", "after_marker": "\n", "chat_template": "none", "add_special": True,
    "parse_special": True, "images_per_prompt": 1, "flash_attention": False, "vision_threads": 4,
}  # fmt: skip

ENGINE_COPY = {"context": 4096, "batch": 256}


@pytest.mark.parametrize(
    ("app", "expected"),
    [
        ("as_shipped", AS_SHIPPED),
        ("java_app", JAVA),
        ("native_class", NATIVE_CLASS),
        ("one_file", ONE_FILE),
        ("beside_others", BESIDE_OTHERS),
        ("engine_copy", ENGINE_COPY),
        ("other_engine", {}),
    ],
)
def test_what_one_line_states_is_read(app: str, expected: dict[str, object]) -> None:
    found = read(APPS / app)
    assert {key: found[key].value for key in expected} == expected


@pytest.mark.parametrize(
    ("app", "read_ones"), [("beside_others", BESIDE_OTHERS), ("other_engine", {})]
)
def test_what_may_be_of_another_model_is_listed_and_not_read(
    app: str, read_ones: dict[str, object]
) -> None:
    found = read(APPS / app)
    assert {key for key, one in found.items() if one.status == "read"} == set(read_ones)
    assert {one.value for one in found["max_tokens"].candidates} >= {
        "beside_others": {640, 500, 12},
        "other_engine": {1024, 768, 512, 256},
    }[app]


def test_a_line_in_a_chain_of_calls_is_quoted_by_what_is_called() -> None:
    found = {one.value: one.line for one in read(APPS / "other_engine")["backend"].candidates}
    assert found["gpu"] == ".setPreferredBackend(LlmInference.Backend.GPU)"


def test_a_setting_looked_up_by_name_leaves_the_limit_open() -> None:
    found = read(APPS / "engine_copy")["max_tokens"]
    assert (found.status, {one.value for one in found.candidates}) == ("several", {0, None})


def test_every_candidate_quotes_a_line_that_is_there() -> None:
    for app in APPS.iterdir():
        for reading in read(app).values():
            assert (reading.status == "not read") == (not reading.candidates)
            for one in reading.candidates:
                name, _, number = one.where.rpartition(":")
                lines = (app / name).read_text("utf-8").splitlines()
                assert lines[int(number) - 1].strip() == one.line


def test_of_several_values_all_are_shown_the_best_guess_first() -> None:
    found = read(APPS / "as_shipped")["image_size"]
    assert (found.status, found.value) == ("several", None)
    assert {one.value for one in found.candidates} == {256, 384, 64}
    assert "TARGET_IMAGE_SIZE" in found.candidates[0].line or found.candidates[0].value == 256
    assert found.candidates[-1].why == "it may be a picture for the screen"


T = "p.n_threads"
CORES = "(int) sysconf(_SC_NPROCESSORS_ONLN)"
CLAMP = "clamp(cores / 2, 2, 6)"
COUNTS = "limit_counts_prompt"
PENALTIES = "llama_sampler_init_penalties(64, 1.3f, 0, 0);"
CHANGED = "changed before it is drawn"


@pytest.mark.parametrize(
    ("body", "aspect", "status", "values"),
    [
        # decided on the way
        ("p.n_ctx = m > 0 ? m : 512;", "context", "computed", [None]),
        ("p.type_k = q ? GGML_TYPE_Q8_0 : GGML_TYPE_F16;", "cache_type_k", "computed", [None]),
        ("int n = 2048; if (q) n = 512; p.n_ctx = n;", "context", "computed", [None]),
        ("int n = 0; for (;;) n++; p.n_ctx = n;", "context", "computed", [None]),
        ("if (m < 512) m = 512; p.n_ctx = m;", "context", "computed", [None]),
        ("p.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_AUTO;", "flash_attention", "computed", [None]),
        (f"int t = std::max(1, c() / 2); if (q) t = 4; {T} = t;", "threads", "computed", [None]),
        (f"{T} = q > 0 ? q : 4;", "threads", "computed", [None]),
        (f"{T} = max(2, min(6, {CORES}) / 2);", "threads", "computed", [None]),
        (f"int c = {CORES}; c -= 1; {T} = c / 2;", "threads", "computed", [None]),
        # two bounds, however they are written
        (f"int c = {CORES}; {T} = std::max(2, std::min(6, c / 2));", "threads", "read", [CLAMP]),
        (f"int c = {CORES}; {T} = std::min(6, std::max(2, c / 2));", "threads", "read", [CLAMP]),
        (f"int c = {CORES}; {T} = std::max(std::min(c / 2, 6), 2);", "threads", "read", [CLAMP]),
        (f"int c = {CORES}; {T} = std::clamp(c / 2, 2, 6);", "threads", "read", [CLAMP]),
        # a count of slices by its name
        ("p.max_slice_nums = 1;", "tiling", "several", ["single"]),
        ("p.max_slice_nums = 9;", "tiling", "several", ["split"]),
        ("const int n_tiles = 0;", "tiling", "several", ["single"]),
        ("p.image_max_tokens = 64;", "tiling", "not read", []),
        # what the limit is compared with
        ("int max_tokens = n_past + n_len;", COUNTS, "several", [False]),
        ("int stop_position = n_predict + prompt_tokens.size();", COUNTS, "several", [False]),
        ("while (n_past < n_len) llama_decode(c, b);", COUNTS, "several", [True]),
        ("if (n_cur == n_len) return; llama_decode(c, b);", COUNTS, "several", [True]),
        ("for (int i = 0; i < n_predict; i++) llama_decode(c, b);", COUNTS, "several", [False]),
        ("if (n_past < n_ctx) llama_decode(c, b);", COUNTS, "not read", []),
        # under a condition, or by a bound
        ("if (q) { p.type_k = GGML_TYPE_Q8_0; }", "cache_type_k", "several", ["q8_0"]),
        ("#ifdef FAST\n    p.n_ctx = 512;\n#endif", "context", "several", [512]),
        ("while (n_decode < 1024) llama_sampler_sample(s, c, 1);", "max_tokens", "several", [1024]),
        ("mtmd_bitmap_init(448, 448, data);", "image_size", "several", [448]),
        # penalties leave greedy open
        (f"{PENALTIES} llama_sampler_init_greedy();", "sampling", "several", ["greedy", CHANGED]),
        # parameters of another model
        ("whisper_context_params w; w.flash_attn = true;", "flash_attention", "not read", []),
        ("whisper_full_params w; w.n_threads = 8;", "threads", "not read", []),
    ],
)
def test_what_a_line_states_is_read_listed_or_said_to_be_computed(
    body: str, aspect: str, status: str, values: list[object], tmp_path: Path
) -> None:
    written(
        tmp_path,
        a_cpp=f"void f(bool q, int m) {{\n    llama_context_params p;\n    {body}\n}}\n"
        "void g() {\n    f(true, 256);\n}\n",
    )
    found = read(tmp_path)[aspect]
    assert (found.status, [one.value for one in found.candidates]) == (status, values)
    assert found.value == (values[0] if status == "read" else None)
    for one in found.candidates:
        assert one.where in ("a.cpp:3", "a.cpp:4")
        assert one.line in body


def test_a_name_is_followed_through_jni_to_the_argument(tmp_path: Path) -> None:
    written(
        tmp_path,
        a_cpp="JNIEXPORT jlong JNICALL\nJava_a_B_new_1context(JNIEnv *e, jobject, jint n_ctx) {\n"
        "    llama_context_params p = llama_context_default_params();\n    p.n_ctx = n_ctx;\n}\n",
        b_kt="class B {\n    private external fun new_context(size: Int): Long\n"
        "    companion object { const val ROOM = 768 }\n    fun open() = new_context(ROOM)\n}\n",
    )
    found = read(tmp_path)["context"]
    assert (found.value, found.candidates[0].where) == (768, "b.kt:3")


RESIZE = """class VlmInput {{
    fun resizeForVlm(b: Bitmap, side: Int): Bitmap {{
        {}
        return Bitmap.createScaledBitmap(b, w, h, true)
    }}
}}
"""


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (
            "val scale = side.toFloat() / b.width\n        val w = (b.width * scale).toInt()",
            "float32",
        ),
        ("val ratio = 256f / maxOf(b.width, b.height)", "float32"),
        ("val scale = side.toDouble() / b.width", "float64"),
        ("val scale = 256.0 / maxOf(b.width, b.height)", "float64"),
        (
            "val scale = side.toFloat() / b.width\n        val w = (b.width * scale).roundToInt()",
            None,
        ),
        ("val scale = settings.scale", None),
    ],
)
def test_the_size_arithmetic_is_that_of_the_scale_unless_something_is_rounded(
    body: str, value: str | None, tmp_path: Path
) -> None:
    written(tmp_path, vlm_kt=RESIZE.format(body))
    found = read(tmp_path)["size_arithmetic"]
    assert found.value == value
    assert found.status != "several" or {one.value for one in found.candidates} == {
        "float32",
        "rounded",
    }


def test_a_filled_canvas_and_unpremultiplied_colours_are_shown_for_alpha(tmp_path: Path) -> None:
    written(
        tmp_path,
        a_kt="class Vlm {\n    fun pad(b: Bitmap, c: Canvas) {\n        c.drawColor(Color.BLACK)\n"
        "        c.drawBitmap(b, 0f, 0f, null)\n    }\n"
        "    fun options() = BitmapFactory.Options().apply { inPremultiplied = false }\n}\n",
    )
    found = read(tmp_path)["alpha"]
    assert found.status == "several"
    assert {one.value: one.line for one in found.candidates} == {
        "composited": "c.drawBitmap(b, 0f, 0f, null)",
        "dropped": "fun options() = BitmapFactory.Options().apply { inPremultiplied = false }",
    }


def test_thumbnails_benchmarks_and_logs_are_no_statements(tmp_path: Path) -> None:
    written(
        tmp_path,
        a_kt="class Chat {\n    fun showThumbnail(b: Bitmap) =\n"
        "        Bitmap.createScaledBitmap(b, 96, 96, true)\n"
        '    fun f() { Log.d("x", "<__media__>\\nwater land fire wood metal") }\n}\n',
        b_cpp="void bench_model() {\n    llama_context_params p;\n    p.n_ctx = 4096;\n}\n",
    )
    found = read(tmp_path)
    assert [found[key].status for key in ("image_size", "context", "marker", "prompt_words")] == [
        "several",
        "several",
        "not read",
        "not read",
    ]


ANDROID_BYTES = "AndroidBitmap_lockPixels(env, bitmap, &src);"


@pytest.mark.parametrize(
    ("source", "writes", "order"),
    [
        (ANDROID_BYTES, "d[i*3] = s[i*4]; d[i*3+1] = s[i*4+1]; d[i*3+2] = s[i*4+2];", "rgb"),
        (ANDROID_BYTES, "d[i*3+0] = s[i*4+2]; d[i*3+1] = s[i*4+1]; d[i*3+2] = s[i*4];", "bgr"),
        (ANDROID_BYTES, "d[0] = p & 0xFF; d[1] = (p >> 8) & 0xFF; d[2] = (p >> 16) & 0xFF;", "rgb"),
        (ANDROID_BYTES, "*d++ = s[0]; *d++ = s[1]; *d++ = s[2];", "rgb"),
        ("jintArray a;", "d[0] = (p >> 16) & 0xFF; d[1] = p >> 8; d[2] = p & 0xFF;", "rgb"),
        ("", "d[0] = (p >> 16) & 0xFF; d[1] = (p >> 8) & 0xFF; d[2] = p & 0xFF;", None),
        (
            ANDROID_BYTES + " std::swap(a, b);",
            "d[0] = (p >> 16) & 0xFF; d[1] = (p >> 8) & 0xFF; d[2] = p & 0xFF;",
            None,
        ),
    ],
)
def test_the_channel_order_is_read_where_the_layout_is_known(
    source: str, writes: str, order: str | None, tmp_path: Path
) -> None:
    written(
        tmp_path,
        a_cpp=f"void f() {{\n    {source}\n    {writes}\n    mtmd_bitmap_init(w, h, d);\n}}",
    )
    found = read(tmp_path)["channels"]
    assert found.value == order
    assert found.candidates


def test_a_class_that_delegates_by_a_call_is_read_and_said(tmp_path: Path) -> None:
    written(
        tmp_path,
        a_kt="class Screen(x: Int) : Base(x), Shown by shown() {\n"
        "    override fun generate(n: Int): Int = n\n    private val maxTokens: Int = 24\n}\n",
    )
    found, notes = scan(tmp_path, contracts.load("default"))
    assert {one.aspect: one.value for one in found}["max_tokens"] == 24
    assert notes == ["a.kt: a class header delegates by a call; it is read without the delegation"]


def test_odd_files_cost_one_line_each(tmp_path: Path) -> None:
    (tmp_path / "big.kt").write_bytes(b"val x = 1\n" * 1_100_000)
    (tmp_path / "binary.kt").write_bytes(os.urandom(3000) + b"\0")
    (tmp_path / "made.java").write_text("// Generated by protoc. DO NOT EDIT!\nclass A {}\n")
    (tmp_path / "deep.kt").write_text("fun f() { g" + "(" * 30_000 + ")" * 30_000 + " }\n")
    (tmp_path / "sum.kt").write_text("val prompt = " + " + ".join(['"a b"'] * 30_000))
    (tmp_path / "chain.kt").write_text("fun f() { a" + ".b(1)" * 100_000 + " }\n")
    (tmp_path / "torn.kt").write_text("}}} fun (((( class\nfun lost(a { \n")
    latin = "// Größe\nval maxTokens = 32\nfun generate() = 1\n"
    (tmp_path / "latin.kt").write_bytes(latin.encode("latin-1"))
    (tmp_path / "loop").symlink_to(tmp_path)
    started = time.process_time()
    found, notes = scan(tmp_path, contracts.load("default"))
    assert time.process_time() - started < 12
    named = {note.partition(":")[0] for note in notes}
    assert {"big.kt", "binary.kt", "made.java", "deep.kt", "torn.kt"} <= named
    assert len(notes) == len(named)
    assert {one.aspect: one.value for one in found}["max_tokens"] == 32


def test_a_folder_without_source_is_refused(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("no source")
    with pytest.raises(BadInput, match="no Kotlin, Java or C"):
        scan(tmp_path, contracts.load("default"))


def test_a_marker_in_a_string_that_is_made_stands_before_the_words(tmp_path: Path) -> None:
    written(
        tmp_path,
        a_cpp="void f(const char *words) {\n"
        '    std::string all = std::string("<__media__>\\n") + words;\n'
        "    mtmd_tokenize(m, chunks, &text, images, 1);\n}\n",
    )
    found = read(tmp_path)
    assert (found["after_marker"].value, found["chat_template"].value) == ("\n", "none")


def test_a_projector_file_whose_name_says_nothing_is_no_statement(tmp_path: Path) -> None:
    written(tmp_path, a_kt='class Vlm {\n    val projector = "mmproj.gguf"\n}\n')
    assert read(tmp_path)["mmproj"].status == "not read"
