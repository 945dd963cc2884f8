"""A contract that no app could mean is refused in one line that names the file and the field."""

# ruff: noqa: E501  (the table is read one case a line)

from __future__ import annotations

import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from driftloop.harness import contract
from driftloop.harness.contract import CacheType, Contract
from driftloop.harness.errors import ContractError


def _loaded(body: str, folder: Path) -> Contract:
    file = folder / "c.toml"
    file.write_text(f'extends = "default"\nname = "c"\n{body}', "utf-8")
    return contract.load(str(file))


REFUSED: dict[str, tuple[str, str]] = {
    "no label": ("[answer]\nlabels = []", "labels: it is empty; name the words"),
    "an empty label": ('[answer]\nlabels = ["", "fire"]', "labels: number 1 is empty; take it out"),
    "a label of blanks": ('[answer]\nlabels = ["fire", "  "]', "labels: number 2 is empty; take it out"),
    "a label twice": ('[answer]\nlabels = ["fire", "fire"]', "labels: 'fire' stands twice; take one out"),
    "capitals": ('[answer]\nlabels = ["Water", "fire"]', "labels: 'Water' can never be read, as answers are stripped and in lower case; write 'water'"),
    "one capital inside": ('[answer]\nlabels = ["wAter"]', "write 'water'"),
    "a blank before": ('[answer]\nlabels = [" fire"]', "write 'fire'"),
    "a blank after": ('[answer]\nlabels = ["water "]', "write 'water'"),
    "two blanks inside": ('[answer]\nlabels = ["sea  water"]', "write 'sea water'"),
    "a line break inside": ('[answer]\nlabels = ["sea\\nwater"]', "write 'sea water'"),
    "a control character": ('[answer]\nlabels = ["fi\\u001Bre"]', "labels: 'fi\\x1bre' holds what no text shows"),
    "a zero-width character": ('[answer]\nlabels = ["fi\\u200Bre"]', "labels: 'fi\\u200bre' holds what no text shows"),
    "shadowed": ('[answer]\nlabels = ["art", "earth"]', "labels: 'earth' can never be read, as 'art' before it is a part of it; put 'earth' first"),
    "shadowed by the beginning": ('[answer]\nlabels = ["wood", "woodland"]', "put 'woodland' first"),
    "a label that is no text": ("[answer]\nlabels = [1]", "answer.labels.0"),
    "labels as one text": ('[answer]\nlabels = "fire"', "answer.labels"),
    "another way to read": ('[answer]\nreading = "regex"', "answer.reading"),
    "batch that llama.cpp dies of": ("[runtime]\nbatch = 2147483647", "runtime.batch"),
    "batch of nothing": ("[runtime]\nbatch = 0", "runtime.batch"),
    "600 threads": ("[runtime]\nthreads = 600", "runtime.threads: Input should be less than or equal to 512"),
    "600 vision threads": ("[runtime]\nvision_threads = 600", "runtime.vision_threads"),
    "negative threads": ("[runtime]\nthreads = -1", "runtime.threads"),
    "context without end": ("[runtime]\ncontext = 4294967296", "runtime.context"),
    "infinite context": ("[runtime]\ncontext = inf", "runtime.context"),
    "context that is no number": ("[runtime]\ncontext = nan", "runtime.context"),
    "batch as a fraction": ("[runtime]\nbatch = 1.5", "runtime.batch"),
    "unknown cache type": ('[runtime]\ncache_type_k = "q3_k"', "runtime.cache_type_k"),
    "quantized V cache alone": ('[runtime]\nflash_attention = false\ncache_type_v = "iq4_nl"', "needs runtime.flash_attention"),
    "answers without end": ("[limits]\nmax_tokens = 2147483647", "limits.max_tokens"),
    "answers of nothing": ("[limits]\nmax_tokens = 0", "limits.max_tokens"),
    "sessions without end": ("[limits]\nimages_per_session = 2147483647", "limits.images_per_session"),
    "infinite temperature": ("[decoding]\ntemperature = inf", "decoding: temperature is inf; write a number"),
    "temperature that is no number": ("[decoding]\ntemperature = nan", "decoding.temperature"),
    "infinite penalty": ("[decoding]\nrepeat_penalty = inf", "decoding: repeat_penalty is inf"),
    "top-k above every vocabulary": ("[decoding]\ntop_k = 2147483648", "decoding: top_k is 2147483648"),
    "seed of more than 64 bits": ("[decoding]\nseed = 18446744073709551616", "decoding.seed"),
    "an empty stop": ('[decoding]\nstop = [""]', "decoding: stop holds an empty token"),
    "NUL in a stop": ('[decoding]\nstop = ["a\\u0000"]', "decoding: stop holds an empty token or a NUL"),
    "NUL in the prompt": ('[prompt]\ntext = "<__media__>a\\u0000b"', "prompt.text: it holds a NUL"),
    "NUL in the marker": ('[prompt]\nmarker = "a\\u0000"\ntext = "a\\u0000"', "prompt.text: it holds a NUL"),
    "a prompt with backslash-n": ("[prompt]\ntext = '<__media__>\\nWhat is it?'", "prompt.text: it holds the two characters \\n"),
    "an image token beside the marker": ('[prompt]\ntext = "<image><__media__>What?"', "holds <image> beside the marker"),
    "no marker": ('[prompt]\ntext = "What is it?"', "must contain the marker"),
    "two markers": ('[prompt]\ntext = "<__media__><__media__>"', "exactly once"),
    "an empty marker": ('[prompt]\nmarker = ""', "prompt.marker"),
    "a prompt of a book": (f'[prompt]\ntext = "<__media__>{"a" * 70_000}"', "prompt.text"),
    "size of nothing": ("[pixels]\nsize = 0", "pixels.size"),
    "size of a poster": ("[pixels]\nsize = 100000", "pixels.size"),
    "a misspelled key": ("[pixels]\nsise = 256", "pixels.sise"),
    "a name of nothing": ("[unknown]\nkey = 1", "unknown"),
    "a key twice": ("[pixels]\nsize = 256\nsize = 128", "cannot be read: Cannot overwrite a value"),
    "a table twice": ("[pixels]\nsize = 256\n[pixels]\nsize = 128", "cannot be read"),
    "a table that is a value": ("pixels = 3", "pixels"),
    "a key of 300 parts": (f"{'.'.join('a' * 300)} = 1", "cannot be read: a key of 300 parts"),
    "a table of 300 parts": (f"[{' . '.join('a' * 300)}]", "cannot be read: a key of 300 parts"),
    "an inline key of 300 parts": (f"x = {{ {'.'.join('a' * 300)} = 1 }}", "cannot be read: a key of 300 parts"),
    "lists in lists": (f"x = {'[' * 5000}{']' * 5000}", "cannot be read: nested too deeply"),
    "a megabyte": (f"# {'a' * 1_000_000}", "cannot be read: it has 1.0 MB, and at most 0.3 MB are read"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_contract_that_cannot_be_meant_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    body, said = REFUSED[name]
    with pytest.raises(ContractError) as refused:
        _loaded(body, tmp_path)
    line = str(refused.value)
    assert said in line
    assert "c.toml" in line
    assert "\n" not in line
    assert len(line) < 1000


TAKEN: dict[str, tuple[str, dict[str, Any]]] = {
    "labels of several words": ('labels = ["sea water", "open land"]', {"It is sea water.": "sea water", "water": None}),
    "labels with an underline": ('labels = ["fire_wood", "wood"]', {"Fire_wood": "fire_wood", "fire wood": "wood"}),
    "the longer one first": ('labels = ["earth", "art"]', {"earth": "earth", "art": "art"}),
    "a part of another where the whole word counts": ('labels = ["art", "earth"]\nreading = "word"', {" Earth\n": "earth", "art": "art"}),
    "other alphabets": ('labels = ["wasser", "земля", "火"]', {"ЗЕМЛЯ": "земля", "火": "火"}),
}  # fmt: skip


@pytest.mark.parametrize("name", TAKEN)
def test_labels_that_an_app_can_read_are_taken(name: str, tmp_path: Path) -> None:
    body, answers = TAKEN[name]
    taken = _loaded(f"[answer]\n{body}", tmp_path)
    assert {text: taken.answer.read(text) for text in answers} == answers


@pytest.mark.parametrize("kind", CacheType.__args__)  # type: ignore[attr-defined]
def test_every_cache_type_of_llama_cpp_is_one_of_a_contract(kind: str, tmp_path: Path) -> None:
    body = f'[runtime]\ncache_type_k = "{kind}"\ncache_type_v = "{kind}"'
    assert _loaded(body, tmp_path).runtime.cache_type_v == kind


def test_a_key_of_a_hundred_thousand_parts_takes_neither_memory_nor_time(tmp_path: Path) -> None:
    tracemalloc.start()
    began = time.process_time()
    with pytest.raises(ContractError):
        _loaded(f"{'.'.join('a' * 100_000)} = 1", tmp_path)
    assert time.process_time() - began < 2
    assert tracemalloc.get_traced_memory()[1] < 50e6
    tracemalloc.stop()
