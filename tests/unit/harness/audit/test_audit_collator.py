"""Collators, run: an aligned one passes in every form, each fault is named by its row."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from driftloop.harness import checkpoint as checkpoints
from driftloop.harness.audit import collator
from driftloop.harness.audit.checkpoint import Tokens
from driftloop.harness.audit.rows import Row
from driftloop.harness.contract import Contract
from driftloop.harness.errors import AuditError

from .reading import wrong

COLLATORS = Path(__file__).parent / "collators.py"


CLIP = "mean [0.481, 0.458, 0.408], deviation [0.269, 0.261, 0.276]"
NOTEBOOK = {
    "output": "label after a space",
    "after_marker": "",
    "prompt_words": None,
    "chat_template": "<|im_start|>User: {prompt}<end_of_utterance>\nAssistant:",
    "tiling": "split",
    "loss": "prompt too",
}


TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{message['role'] | capitalize}}"
    "{% if message['content'][0]['type'] == 'image' %}{{':'}}{% else %}{{': '}}{% endif %}"
    "{% for line in message['content'] %}{% if line['type'] == 'text' %}{{line['text']}}"
    "{% elif line['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}<end_of_utterance>\n"
    "{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
"""Of the published SmolVLM checkpoints, which have it as JSON."""


@pytest.fixture(scope="module")
def tokens(saved_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Tokens:
    published = tmp_path_factory.mktemp("published") / "checkpoint"
    shutil.copytree(saved_checkpoint, published)
    (published / "chat_template.jinja").unlink()  # of a model of texts alone
    (published / "chat_template.json").write_text(json.dumps({"chat_template": TEMPLATE}), "utf-8")
    return Tokens(checkpoints.load(published))


def judged(spec: str, tokens: Tokens, contract: Contract) -> dict[str, Row]:
    return wrong(collator.findings(spec, tokens, contract, None), contract)


@pytest.mark.parametrize(
    "spec",
    [
        f"{COLLATORS}:aligned",
        f"{COLLATORS}:make_collator",
        f"{COLLATORS}:Collator",
        f"{COLLATORS}:triples",
        "driftloop.harness.training.dataset:collate",
    ],
)
def test_an_aligned_collator_passes_in_every_form(
    spec: str, tokens: Tokens, contract: Contract
) -> None:
    assert judged(spec, tokens, contract) == {}


@pytest.mark.parametrize(
    ("name", "faults"),
    [
        ("no_newline", {"after_marker": ""}),
        ("literal_marker", {"marker": "literal text"}),
        ("with_context", {"context_block": True}),
        ("trailing_space", {"prompt_end": " ", "output": "label after a space"}),
        ("loss_on_the_prompt", {"loss": "prompt too"}),
        ("loss_on_image_tokens", {"loss": "prompt too"}),
        ("loss_on_padding", {"loss": "padding too"}),
        ("tiles_beside_one", {"tiling": "pixels of 5 tiles beside 4 image tokens"}),
        ("no_end_token", {"end_token": False}),
        ("end_token_masked", {"end_token": False}),
        ("splitting", {"tiling": "split"}),
        ("stretched", {"padding": "none", "resize": "bicubic"}),
        ("own_processor", {"padding": "none", "resize": "bicubic"}),
        ("bgr", {"channels": "bgr"}),
        ("other_normalisation", {"normalisation": CLIP}),
        ("lanczos", {"resize": "lanczos", "centring": "integer"}),
        ("at_512", {"image_size": 512, "resize": "lanczos", "centring": "integer"}),
        ("white", {"padding": "white", "resize": "lanczos", "centring": "integer"}),
        ("notebook", NOTEBOOK),
    ],
)
def test_each_fault_of_a_collator_is_named(
    name: str, faults: dict[str, object], tokens: Tokens, contract: Contract
) -> None:
    found = judged(f"{COLLATORS}:{name}", tokens, contract)
    assert set(found) == set(faults)
    for aspect, value in faults.items():
        if value is not None:
            assert found[aspect].value == value


def test_a_conversation_keeps_the_text_it_is_given_and_what_it_prints_stays_off_stdout(
    tokens: Tokens, contract: Contract, capsys: pytest.CaptureFixture[str]
) -> None:
    found = judged(f"{COLLATORS}:conversation", tokens, contract)
    assert set(found) == {"chat_template", "output", "tiling", "loss"}
    said = capsys.readouterr()
    assert (said.out, "3 examples" in said.err) == ("", True)


def test_a_marker_of_the_drawn_samples_is_not_held_against_the_collator(
    tokens: Tokens, contract: Contract
) -> None:
    assert "marker" not in judged(f"{COLLATORS}:captions", tokens, contract)


SCRIPT = """\
import argparse
{imports}
parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, {how})
options = parser.parse_args()
from driftloop.harness.training.dataset import collate
"""


def test_a_script_that_parses_its_arguments_gets_none_of_ours(
    tmp_path: Path, tokens: Tokens, contract: Contract
) -> None:
    script = tmp_path / "train.py"
    script.write_text(SCRIPT.format(imports="", how="default=3"), "utf-8")
    assert judged(f"{script}:collate", tokens, contract) == {}


ASKING = SCRIPT.format(imports="", how="required=True")
TRACKED = SCRIPT.format(imports="import no_such_tracker", how="default=3")


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (f"{COLLATORS}:broken", "RuntimeError: 3 examples, and none is right (collators.py:"),
        (f"{COLLATORS}:asks_too_much", "it asks for examples, teacher"),
        (f"{COLLATORS}:nowhere", "has no nowhere"),
        ("no_such_module:collate", "no module no_such_module"),
        ("collate", "write module:callable"),
        (ASKING, "SystemExit: 2, it ends the process"),
        (TRACKED, "'no_such_tracker'; install it, or name a file"),
    ],
    ids=["broken", "asks", "no name", "no module", "no colon", "arguments", "imports"],
)
def test_a_collator_that_cannot_run_is_refused_in_one_line_that_says_what_to_do(
    spec: str, said: str, tmp_path: Path, tokens: Tokens, contract: Contract
) -> None:
    if "\n" in spec:
        (tmp_path / "train.py").write_text(spec, "utf-8")
        spec = f"{tmp_path / 'train.py'}:collate"
    with pytest.raises(AuditError) as refusal:
        judged(spec, tokens, contract)
    assert said in str(refusal.value)
    assert "\n" not in str(refusal.value)


_ODD = """\
import sys
sys.path.insert(0, {folder!r})
import collators

contract = None

def collate(examples, processor):
    assert contract is not None
    return collators.aligned(
        [{{"image": one.picture, "prompt": one.asked, "label": one.said}} for one in examples],
        processor,
    )
"""
_ADAPTOR = """
from types import SimpleNamespace
def driftloop_example(image, prompt, label):
    asked = prompt.replace("<__media__>", "<image>")
    return SimpleNamespace(picture=image, asked=asked, said=label)
"""


def test_an_adaptor_says_what_an_example_looks_like(
    tmp_path: Path, tokens: Tokens, contract: Contract
) -> None:
    file = tmp_path / "odd.py"
    file.write_text(_ODD.format(folder=str(COLLATORS.parent)), "utf-8")
    with pytest.raises(AuditError) as refusal:
        judged(f"{file}:collate", tokens, contract)
    assert "def driftloop_example(image, prompt, label): return {...}" in str(refusal.value)
    assert "\n" not in str(refusal.value)
    file.write_text(_ODD.format(folder=str(COLLATORS.parent)) + _ADAPTOR, "utf-8")
    assert judged(f"{file}:collate", tokens, contract) == {}
    # What the function lacked was given to a copy of it.
    assert sys.modules["driftloop_audited_collator"].contract is None
