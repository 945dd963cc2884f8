"""What real loads say: logs of three llama.cpp commits, trimmed, and of the one that is pinned."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from driftloop.fixtures import demo
from driftloop.harness import bundle as bundles
from driftloop.harness import contract as contracts
from driftloop.harness.arms import llama_load
from driftloop.harness.arms.desktop import LlamaSession
from driftloop.harness.audit.aspects import APP_THREADS
from driftloop.harness.audit.findings import Value
from driftloop.harness.contract import Contract
from driftloop.harness.errors import AuditError
from driftloop.harness.listen import Heard, hear, logcat

LOGS = Path(__file__).parent / "logs"
DEFAULT = contracts.load("default")
ONE_LOAD = (
    "llama_model_loader: loaded meta data with 28 key-value pairs and 20 tensors from t.gguf "
    "(version GGUF V3 (latest))"
)

RUNTIME = {
    "context": 1024, "batch": 512, "cache_type_k": "q4_0", "cache_type_v": "q4_0",
    "flash_attention": True, "backend": "cpu", "weights": "q8_0",
}  # fmt: skip


def heard_in(text: str) -> Heard:
    lines = enumerate(text.strip().splitlines(), start=1)
    return hear(logcat.parsed(number, line) for number, line in lines)[0]


def facts_in(
    heard: Heard, images: int | None = None, contract: Contract = DEFAULT
) -> dict[str, Value | None]:
    return {one.aspect: one.value for one in heard.findings(contract, images, "log")}


@pytest.mark.parametrize(
    ("commit", "tiling"),
    [("8733e0cf6", "single"), ("4227c9be4", "single"), ("af6528e6d", "split")],
)
def test_ten_facts_are_told_from_the_log_of_any_llama_cpp(commit: str, tiling: str) -> None:
    """Each commit's llama-mtmd-cli: the tiny bundle, one picture, the app's runtime."""
    recorded = hear(logcat.of_file(LOGS / f"llama.cpp-{commit}.log"))[0]
    found = facts_in(recorded, images=1)
    assert found.items() >= (RUNTIME | {"tiling": tiling}).items()
    facts = {row.tells: value for row, value, _ in recorded.others()}
    assert facts["text_file"].endswith("text-q8_0.gguf")
    assert facts["text_tensors"] == "f32: 5, q8_0: 15"
    assert facts["vision_image_size"] == "128"
    assert facts["vision_backend"] == "CPU"
    assert int(facts["prompt_tokens"]) > int(facts["slice_tokens"]) > 0
    assert float(facts["slice_ms"]) > 0
    assert float(facts["token_ms"]) > 0


@pytest.fixture
def lines_of_llama_cpp() -> Iterator[list[str]]:
    """What llama.cpp logs here while a test runs."""
    said: list[str] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    handler = Kept()
    level = llama_load.LOGGER.level
    llama_load.LOGGER.setLevel(logging.DEBUG)
    llama_load.LOGGER.addHandler(handler)
    yield said
    llama_load.LOGGER.removeHandler(handler)
    llama_load.LOGGER.setLevel(level)


def test_the_pinned_llama_cpp_is_understood(lines_of_llama_cpp: list[str]) -> None:
    bundle = bundles.load(demo.bundle(print))
    runtime = DEFAULT.runtime.model_copy(update={"context": 768, "batch": 96, "threads": 1})
    files = bundle.text_model("q8_0"), bundle.mmproj("q8_0")
    LlamaSession(*files, runtime, DEFAULT.prompt.marker).close()
    found = facts_in(heard_in("\n".join(lines_of_llama_cpp)))
    assert found == RUNTIME | {"context": 768, "batch": 96}


def lies_in(*buffers: str) -> str:
    return "\n".join(f"load_tensors: {one} model buffer size = 5 MiB" for one in buffers)


WANTED = "cpu, where a GPU was wanted"


@pytest.mark.parametrize(
    ("lines", "backend"),
    [
        (lies_in("CPU_Mapped"), "cpu"),
        (lies_in("CPU_Mapped", "OpenCL"), "opencl"),
        (lies_in("Vulkan_Host", "Vulkan0"), "vulkan"),
        ("ggml_opencl: platform IDs not available.\n" + lies_in("CPU"), WANTED),
        ("load_tensors: offloaded 31/31 layers to GPU\n" + lies_in("CPU_Mapped"), WANTED),
    ],
)
def test_a_model_runs_where_its_weights_lie(lines: str, backend: str) -> None:
    assert facts_in(heard_in(f"{ONE_LOAD}\n{lines}"))["backend"] == backend


SLICE = """\
encoding image slice...
image slice encoded in 75 ms
decoding image batch 1/1, n_tokens_batch = 64
image decoded (batch 1/1) in 29 ms
"""


@pytest.mark.parametrize(
    ("log", "images", "tiling"),
    [
        (SLICE, None, "single"),
        (f"{SLICE}answer: fire\n{SLICE}answer: land\n", None, "single"),
        (3 * SLICE, None, None),
        (3 * SLICE, 3, "single"),
        (17 * SLICE, 1, "split"),
        (f"preprocess: grid size: 4 x 4 (16 tiles) + overview\n{17 * SLICE}", None, "split"),
    ],
    ids=["one", "two answers", "in a row", "of three", "of one", "grid"],
)
def test_slices_of_one_image_are_told_from_single_tiles_of_several_or_left_open(
    log: str, images: int | None, tiling: str | None
) -> None:
    assert facts_in(heard_in(f"{ONE_LOAD}\n{log}"), images)["tiling"] == tiling


@pytest.mark.parametrize(
    ("threads", "cores", "value"), [(4, 8, APP_THREADS), (2, 2, APP_THREADS), (8, 8, 8)]
)
def test_threads_are_held_against_the_apps_rule_for_the_cores_of_that_phone(
    threads: int, cores: int, value: Value
) -> None:
    line = f"system_info: n_threads = {threads} (n_threads_batch = 4) / {cores} | CPU : NEON = 1"
    assert facts_in(heard_in(f"{ONE_LOAD}\n{line}"))["threads"] == value


def test_flash_attention_that_was_left_to_llama_cpp_is_what_it_came_to() -> None:
    auto = f"{ONE_LOAD}\nllama_context: flash_attn    = auto"
    assert "flash_attention" not in facts_in(heard_in(auto))
    resolved = f"{auto}\nllama_context: Flash Attention was auto, set to disabled"
    assert facts_in(heard_in(resolved))["flash_attention"] is False


@pytest.mark.parametrize(
    ("said", "name"), [("Q8_0", "q8_0"), ("Q4_K - Medium", "q4_k_m"), ("(guessed) F16", "f16")]
)
def test_weight_types_have_the_names_that_bundles_give_them(said: str, name: str) -> None:
    assert facts_in(heard_in(f"{ONE_LOAD}\nprint_info: file type   = {said}"))["weights"] == name


def test_two_contexts_of_one_process_are_several_and_both_are_quoted() -> None:
    heard = heard_in(f"{ONE_LOAD}\nllama_context: n_ctx = 1024\nllama_context: n_ctx = 2048")
    found = {one.aspect: one for one in heard.findings(DEFAULT, None, "app.log")}
    context = found["context"]
    assert context.value is None
    assert [(one.value, one.where) for one in context.quotes] == [
        (1024, "app.log:2"), (2048, "app.log:3")
    ]  # fmt: skip


def test_of_several_processes_the_last_is_told_and_the_others_are_named() -> None:
    def load(pid: int, context: int) -> list[str]:
        before = f"I/llama( {pid}): "
        return [f"{before}{ONE_LOAD}", f"{before}llama_context: n_ctx = {context}"]

    lines = [logcat.parsed(1, line) for line in (*load(11, 1024), *load(12, 2048))]
    last, others = hear(lines)
    assert (facts_in(last)["context"], others) == (2048, [11])
    first, others = hear(lines, pid=11)
    assert (facts_in(first)["context"], others) == (1024, [12])


def test_figures_that_are_none_are_left_out() -> None:
    prompt = "prompt eval time = 1.2.3 ms / 9 tokens"
    answer = "       eval time = 0.00 ms / 1 runs ( 0.00 ms per token)"
    heard = heard_in(f"{ONE_LOAD}\n{prompt}\n{answer}")
    assert {row.tells for row, _, _ in heard.others()} == {"text_file", "prompt_tokens"}


@pytest.mark.parametrize("pid", [None, 7])
def test_a_log_without_llama_cpp_tells_nothing(pid: int | None) -> None:
    with pytest.raises(AuditError, match="holds no line in which"):
        hear([logcat.parsed(1, "I/ActivityManager( 1): Start proc")], pid)
