"""A dataset on disk: every planted fault is named by its row, and an aligned one has none."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from driftloop.fixtures import tiny
from driftloop.harness import checkpoint as checkpoints
from driftloop.harness.audit import dataset
from driftloop.harness.audit.checkpoint import Tokens
from driftloop.harness.audit.findings import Finding
from driftloop.harness.contract import Contract, Pixels

from .reading import LABELS, Make, wrong

TURNS = "<|im_start|>User:{prompt}<end_of_utterance>\nAssistant:"

Record = dict[str, Any]
Change = Callable[[int, Record], Record]


def read(path: Path, contract: Contract, **options: Any) -> list[Finding]:  # noqa: ANN401
    options.setdefault("tokens", Tokens(checkpoints.load(str(tiny.checkpoint()))))
    return list(dataset.findings(path, contract, lambda done, total: None, **options))


def planted(**fields: object) -> Change:
    return lambda index, record: record | fields


def swapped(field: str, old: str, new: str) -> Change:
    """`old` in one of the fields as `new`; the whole field where `old` is empty."""
    return lambda index, record: (
        record | {field: record[field].replace(old, new) if old else new.format(record[field])}
    )


def test_an_aligned_dataset_has_no_mismatch(table: Make, contract: Contract) -> None:
    assert wrong(read(table(contract.pixels), contract), contract) == {}


@pytest.mark.parametrize(
    ("pixels", "aspect", "value"),
    [
        ({"size": 512}, "image_size", 512),
        ({"recipe": "lanczos"}, "resize", "lanczos"),
        ({"recipe": "bilinear"}, "resize", "bilinear"),
        ({"alpha": "dropped"}, "alpha", "dropped"),
        ({"arithmetic": "float64"}, "size_arithmetic", "float64"),
        ({"padding": "white"}, "padding", "white"),
        ({"padding": "edge"}, "padding", "edge"),
        ({"centring": "top-left"}, "centring", "top-left"),
        ({"centring": "integer"}, "centring", "integer"),
        ({"channels": "bgr"}, "channels", "bgr"),
    ],
)
def test_pixels_made_otherwise_are_found_in_the_pixels(
    pixels: dict[str, object], aspect: str, value: object, table: Make, contract: Contract
) -> None:
    made = Pixels.model_validate(contract.pixels.model_dump() | pixels)
    found = wrong(read(table(made), contract), contract)
    assert set(found) == {aspect}
    assert found[aspect].value == value
    assert "sample" in found[aspect].where or aspect == "image_size"


@pytest.mark.parametrize(
    ("record", "aspect", "value"),
    [
        (swapped("prompt", "<image>\n", "<image>"), "after_marker", ""),
        (swapped("prompt", "", "{} "), "prompt_end", " "),
        (swapped("prompt", "<image>", "<__media__>"), "marker", "literal text"),
        (swapped("prompt", "\n\nE", "\n\nContext: orange flames\n\nE"), "context_block", True),
        (swapped("prompt", "", TURNS.replace("{prompt}", "{}")), "chat_template", TURNS),
        (swapped("prompt", "Classify", "Sort"), "prompt_words", None),
        (planted(max_tokens=128), "max_tokens", 128),
        (planted(label_image_sha256="0" * 64), "label_image", "another picture"),
        (planted(label_resolution=1024), "label_image", "another picture"),
        (planted(labelled_on="full resolution"), "label_image", "another picture"),
        (swapped("target", "", "{}, because of it"), "output", None),
        (swapped("target", "", " {}"), "output", "label after a space"),
        (swapped("target", "fire", "air"), "labels", None),
        (planted(image=["0.png", "1.png", "2.png"]), "images_per_prompt", 3),
    ],
)
def test_texts_and_facts_that_differ_are_named(
    record: Change, aspect: str, value: object, table: Make, contract: Contract
) -> None:
    found = wrong(read(table(record=record), contract), contract)
    assert aspect in found
    if value is not None:
        assert found[aspect].value == value
    assert "train.jsonl" in found[aspect].where or aspect == "labels"


def test_an_image_placeholder_is_text_until_a_tokenizer_says_otherwise(
    table: Make, contract: Contract
) -> None:
    found = wrong(read(table(), contract, tokens=None), contract)
    assert found["marker"].value == "<image> as text"
    assert "--checkpoint" in found["marker"].note


def test_one_entry_in_many_is_enough(table: Make, contract: Contract) -> None:
    def last(index: int, record: Record) -> Record:
        return record | ({"max_tokens": 128} if index == 4 else {})

    found = wrong(read(table(record=last), contract), contract)
    assert found["max_tokens"].where.endswith("1 of 5 entries, train.jsonl:5 first")


def test_a_conversation_is_read_up_to_its_answer(table: Make, contract: Contract) -> None:
    def talk(index: int, record: Record) -> Record:
        words = record["prompt"].removeprefix("<image>")
        content = [{"type": "image"}, {"type": "text", "text": words}]
        return {
            "images": [record["image"]],
            "messages": [
                {"role": "user", "content": content},
                {"role": "assistant", "content": [{"type": "text", "text": record["target"]}]},
            ],
        }

    found = read(table(record=talk), contract, tokens=None)
    assert wrong(found, contract) == {}
    template = next(finding for finding in found if finding.aspect == "chat_template")
    assert template.value is None


def test_llava_turns_and_alpaca_rows_are_read(table: Make, contract: Contract) -> None:
    def llava(index: int, record: Record) -> Record:
        turns = [("human", record["prompt"] + " "), ("gpt", record["target"])]
        said = [{"from": who, "value": text} for who, text in turns]
        return {"image": record["image"], "conversations": said}

    def alpaca(index: int, record: Record) -> Record:
        return {"image": record["image"], "instruction": record["prompt"], "output": "It is fire."}

    assert "prompt_end" in wrong(read(table(record=llava), contract, tokens=None), contract)
    assert "output" in wrong(read(table(record=alpaca), contract), contract)


def test_label_folders_are_a_dataset(tmp_path: Path, contract: Contract) -> None:
    for label in (*LABELS, "plasma"):
        (tmp_path / label).mkdir()
        Image.new("RGB", (512, 512), "olive").save(tmp_path / label / "one.png")
    found = wrong(read(tmp_path, contract), contract)
    assert found["image_size"].value == 512
    assert "plasma" in found["labels"].note


def test_originals_of_the_same_name_show_how_pixels_were_made(
    photos: Path, tmp_path: Path, contract: Contract
) -> None:
    (tmp_path / "fire").mkdir()
    for photo in photos.iterdir():
        Image.open(photo).convert("RGB").resize((256, 256)).save(tmp_path / "fire" / photo.name)
    found = wrong(read(tmp_path, contract, sources=photos), contract)
    assert found["padding"].value == "none"
    assert found["resize"].value == "bicubic"


def test_without_sources_padding_is_judged_by_its_looks(
    tmp_path: Path, photos: Path, contract: Contract
) -> None:
    (tmp_path / "fire").mkdir()
    for index, photo in enumerate(sorted(photos.glob("photo[012].png"))):
        square = Image.new("RGB", (256, 256), "white")
        picture = Image.open(photo).resize((256, 171))
        square.paste(picture, (0, 42))
        square.save(tmp_path / "fire" / f"{index}.png")
    assert wrong(read(tmp_path, contract), contract)["padding"].value == "white"


def test_a_csv_table_says_the_same_as_jsonl(table: Make, contract: Contract) -> None:
    path = table()
    records = [json.loads(line) for line in path.read_text().splitlines()]
    csv = path.with_suffix(".csv")
    rows = [f'{one["image"]},"{one["prompt"]}",{one["target"]},128' for one in records]
    csv.write_text("\n".join(["image,prompt,target,max_tokens", *rows]), "utf-8")
    assert set(wrong(read(csv, contract), contract)) == {"max_tokens"}


def test_a_label_under_a_name_of_the_teams_own_is_the_target_and_a_search_word_no_prompt(
    table: Make, contract: Contract
) -> None:
    def found_by_search(index: int, record: Record) -> Record:
        said = {"image_path": record["image"], "query": "water", "element": record["target"]}
        return said | {"reason": "flames", "confidence": 0.9}

    path = table(record=found_by_search)
    (path.parent / "all.jsonl").write_text(path.read_text("utf-8"), "utf-8")
    found = read(path.parent, contract)
    assert wrong(found, contract) == {}
    assert not any(finding.aspect == "prompt_words" for finding in found)
    output = next(finding for finding in found if finding.aspect == "output")
    assert output.value == "label"
    assert "5 of 5 entries" in output.where


def test_a_query_that_asks_something_is_a_prompt(table: Make, contract: Contract) -> None:
    def asked(index: int, record: Record) -> Record:
        return {"image": record["image"], "query": "Fire or not?", "label": record["target"]}

    found = wrong(read(table(record=asked), contract), contract)
    assert found["prompt_words"].value == "Fire or not?"


def test_entries_that_read_the_same_in_two_folders_are_two(
    table: Make, contract: Contract, tmp_path: Path
) -> None:
    path = table()
    for split in ("train", "test"):
        (tmp_path / "data" / split).mkdir(parents=True)
        (tmp_path / "data" / split / "metadata.jsonl").write_text(path.read_text("utf-8"), "utf-8")
        for image in path.parent.glob("*.png"):
            (tmp_path / "data" / split / image.name).write_bytes(image.read_bytes())
    found = read(tmp_path / "data", contract)
    size = next(finding for finding in found if finding.aspect == "image_size")
    assert "10 of 10 images" in size.where
