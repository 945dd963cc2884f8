"""The rung `app`: what an app says of itself, on the ladder beside the runner's own answers."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from driftloop.devices.phone import Phone
from driftloop.fixtures import textures
from driftloop.harness import contract as contracts
from driftloop.harness.arms.app import AppLine
from driftloop.harness.bundle import Bundle
from driftloop.harness.comparison.blame import Blame
from driftloop.harness.errors import BadInput
from driftloop.harness.judgement.verdict import Verdict
from driftloop.harness.preprocess import prepare_case
from driftloop.harness.progress import Unseen
from driftloop.harness.records.journal import RunFolder
from driftloop.harness.records.observation import TotalTime
from driftloop.harness.running.request import RunRequest
from driftloop.harness.running.run import evaluate

IMAGES = 9
DOCS = Path(__file__).parents[3] / "docs"
REFERENCE = "desktop:q8_0+app"
PHONE = "phone:q8_0+app"
CONTRACT = contracts.load("default")

Lines = list[dict[str, Any]]
Change = Callable[[Lines, Path], None]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    textures.save(folder, IMAGES, seed=23)
    return folder


def asked(bundle: Path, images: Path, out: Path) -> RunRequest:
    """A run of the reference and of an app that wrote `app.jsonl`."""
    arms = (REFERENCE, "app")
    return RunRequest(bundle, str(images), out / "run", arms=arms, app=out / "app.jsonl")


def judged(bundle: Path, images: Path, out: Path, lines: Lines) -> Verdict:
    """What a run says of an app that wrote these lines."""
    (out / "app.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return evaluate(replace(asked(bundle, images, out), fixed=IMAGES), Unseen()).verdict


@pytest.fixture(scope="module")
def own(tiny_bundle: Bundle, images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reference's own answers in a folder, as the lines and dumps of an app."""
    folder = tmp_path_factory.mktemp("own")
    request = RunRequest(
        tiny_bundle.path, str(images), folder / "run", arms=(REFERENCE,), fixed=IMAGES
    )
    evaluate(request, Unseen())
    lines = []
    for seen in RunFolder(request.out).read():
        if seen.canary is None:
            dump = folder / f"{Path(seen.case_id).stem}.rgb"
            square = prepare_case(images / seen.case_id, CONTRACT.pixels)
            dump.write_bytes(square.tobytes())
            fields = {"text", "grid", "image_tokens", "prompt_ids", "label_logprobs"}
            line = {"image": seen.case_id, "pixels": dump.name, **seen.model_dump(include=fields)}
            lines.append(line | {"token_ids": [token.id for token in seen.tokens or ()]})
    (folder / "lines.json").write_text(json.dumps(lines))
    return folder


@pytest.fixture
def lines(own: Path, tmp_path: Path) -> Lines:
    """The reference's own answers, to change; their dumps lie beside the test's app file."""
    for dump in own.glob("*.rgb"):
        (tmp_path / dump.name).write_bytes(dump.read_bytes())
    copied: Lines = json.loads((own / "lines.json").read_text())
    return copied


def test_an_app_that_answers_as_the_runner_is_clean(
    tiny_bundle: Bundle, images: Path, lines: Lines, tmp_path: Path
) -> None:
    verdict = judged(tiny_bundle.path, images, tmp_path, lines)
    (hop,) = verdict.hops
    assert (hop.name, hop.reference, hop.candidate) == ("app", REFERENCE, "app")
    assert hop.blames == ()
    for equal in (hop.pixels_equal, hop.prompt_ids_equal, hop.tokens_equal, hop.grid_equal):
        assert (equal.count, equal.of) == (IMAGES, IMAGES)
    assert not [gate for gate in verdict.gates if gate.outcome == "fail"]
    assert not verdict.undelivered


def test_what_the_app_does_not_say_is_equal_to_nothing(
    tiny_bundle: Bundle, images: Path, lines: Lines, tmp_path: Path
) -> None:
    said = [{"image": line["image"], "text": line["text"]} for line in lines]
    verdict = judged(tiny_bundle.path, images, tmp_path, said)
    (hop,) = verdict.hops
    for equal in (hop.pixels_equal, hop.prompt_ids_equal, hop.tokens_equal, hop.grid_equal):
        assert equal.of == 0
    assert hop.agreement == 1.0
    (note,) = [note for note in verdict.notes if note.startswith("app: not reported")]
    assert all(what in note for what in ("pixels", "prompt ids", "generated ids", "probabilities"))


def _dumps(change: Callable[[Image.Image], Image.Image]) -> Change:
    def changed(lines: Lines, folder: Path) -> None:
        for line in lines:
            dump = folder / line["pixels"]
            square = Image.frombytes("RGB", (256, 256), dump.read_bytes())
            dump.write_bytes(change(square).tobytes())

    return changed


def _each(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Change:
    def changed(lines: Lines, _folder: Path) -> None:
        for line in lines:
            line |= change(line)

    return changed


_bgr = _dumps(lambda square: Image.merge("RGB", square.split()[::-1]))


def _another_prompt(line: dict[str, Any]) -> dict[str, Any]:
    *ids, last = line["prompt_ids"]
    return {"prompt_ids": [*ids, 2, last]}


def _another_cache(line: dict[str, Any]) -> dict[str, Any]:
    logprobs = enumerate(line["label_logprobs"].items(), start=1)
    return {"label_logprobs": {label: value - 0.9 * place for place, (label, value) in logprobs}}


def _another_rule(line: dict[str, Any]) -> dict[str, Any]:
    return {"label": "fire" if "water" in line["text"] else "water"}


def _cut_short(line: dict[str, Any]) -> dict[str, Any]:
    return {"token_ids": line["token_ids"][:1], "text": line["text"][:3]}


@pytest.mark.parametrize(
    ("change", "stage", "words"),
    [
        (_bgr, "resize", "bgr"),
        (_dumps(lambda square: square.resize((64, 64))), "resize", "its pixels are"),
        (_each(_another_prompt), "tokens", "ids instead of"),
        (_each(_another_cache), "prefill", "nats"),
        (_each(_another_rule), "label", "as another label"),
        (_each(_cut_short), "decode", "ends answers early"),
    ],
)
def test_a_difference_is_blamed_at_its_stage_on_the_hop_app(
    change: Change,
    stage: str,
    words: str,
    tiny_bundle: Bundle,
    images: Path,
    lines: Lines,
    tmp_path: Path,
) -> None:
    change(lines, tmp_path)
    first: Blame = judged(tiny_bundle.path, images, tmp_path, lines).blames[0]
    assert (first.hop, first.stage) == ("app", stage), first.sentence
    assert words in first.sentence


def test_the_lines_and_their_dumps_are_pulled_from_the_phone_that_the_app_ran_on(
    tiny_bundle: Bundle, images: Path, lines: Lines, phone: Phone, tmp_path: Path
) -> None:
    _bgr(lines, tmp_path)
    text = "".join(f"{json.dumps(line)}\n" for line in lines)
    remote = "/data/local/tmp/an app's/lines.jsonl"
    phone.push(text.encode(), remote)
    for line in lines:
        phone.push(tmp_path / line["pixels"], f"/data/local/tmp/an app's/{line['pixels']}")
    request = RunRequest(
        tiny_bundle.path, str(images), tmp_path / "run", phones=(phone.serial,),
        arms=(REFERENCE, PHONE, "app"), app_pull=remote, fixed=IMAGES,
    )  # fmt: skip
    verdict = evaluate(request, Unseen()).verdict
    platform, app = verdict.hops
    assert platform.blames == ()
    assert (app.reference, app.reference_phone) == (PHONE, phone.serial)
    assert "bgr" in app.blames[0].sentence
    again = evaluate(request, Unseen()).verdict
    assert again.blames == verdict.blames


def test_another_model_than_the_bundle_s_is_blamed_though_no_answer_shows_it(
    tiny_bundle: Bundle, images: Path, lines: Lines, tmp_path: Path
) -> None:
    for line in lines:
        line["mmproj_sha256"] = "0" * 64
    verdict = judged(tiny_bundle.path, images, tmp_path, lines)
    assert verdict.verdict == "FAIL"
    assert "mmproj 000000000000, not " in verdict.blames[0].sentence


def test_an_image_that_the_app_never_answered_is_its_fault(
    tiny_bundle: Bundle, images: Path, lines: Lines, tmp_path: Path
) -> None:
    verdict = judged(tiny_bundle.path, images, tmp_path, lines[1:])
    assert "the app wrote no line" in verdict.blames[0].sentence


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"image": "nowhere.png", "text": "fire"}\n', "line 1: 'nowhere.png' is none of"),
        ('{"image": "IMAGE", "text": "fire"}\n' * 2, "line 2: 'IMAGE' is on line 1 too"),
        ('{"image": "IMAGE", "te', "line 1: .*torn"),
        ('{"image": "IMAGE"}\n', "line 1: text: Field required"),
        ('{"text": "fire"}\n', "line 1: .*name the image"),
        ('{"image": "IMAGE", "text": "fire", "pixels": "gone.rgb"}\n', "gone.rgb"),
        ('{"image": "IMAGE", "text": "fire", "pixels": "../x"}\n', "no path below"),
        ("\n", "holds no line"),
        ("\x00\x1b[31m\u2028\n", "line 1: "),
    ],
)
def test_lines_that_cannot_be_used_are_refused_in_one_line(
    text: str, says: str, tiny_bundle: Bundle, images: Path, tmp_path: Path
) -> None:
    name = next(images.glob("*.png")).name
    (tmp_path / "app.jsonl").write_text(text.replace("IMAGE", name))
    with pytest.raises(BadInput, match=says.replace("IMAGE", name)) as caught:
        evaluate(asked(tiny_bundle.path, images, tmp_path), Unseen())
    assert "\n" not in str(caught.value)


@pytest.mark.timeout(60)
def test_a_pipe_in_the_place_of_the_lines_is_refused_and_not_waited_for(
    tiny_bundle: Bundle, images: Path, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "app.jsonl")
    with pytest.raises(BadInput, match="not a regular file"):
        evaluate(asked(tiny_bundle.path, images, tmp_path), Unseen())


def test_the_documented_format_is_the_one_that_is_read() -> None:
    schema = json.loads((DOCS / "app-observations.schema.json").read_text())
    assert schema == AppLine.model_json_schema()
    for line in (DOCS / "app-observations.example.jsonl").read_text().splitlines():
        assert AppLine.model_validate_json(line).text in CONTRACT.answer.labels
    page = (DOCS / "app-observations.md").read_text()
    assert all(f"`{field}`" in page for field in AppLine.model_fields)
    whole = AppLine(image="a.png", text="fire", timings_ms=TotalTime(total=700.0))
    assert AppLine.model_validate_json(whole.model_dump_json()) == whole
