"""Findings beside the contract: what matches, what does not, what could not be read."""

from __future__ import annotations

import json

from driftloop.harness.audit.findings import Finding
from driftloop.harness.audit.gauge import Gauge
from driftloop.harness.audit.rows import missing, rows, verdict
from driftloop.harness.contract import Contract


def test_what_could_not_be_read_is_no_mismatch(contract: Contract) -> None:
    found = rows([Finding("resize", "app", None, "a.kt:3", "the filter is a variable")], contract)
    assert found[0].match is None
    assert verdict(found, []) == "ALIGNED"


def test_nothing_is_aligned_before_the_alignment_table_is_read(contract: Contract) -> None:
    document = [
        Finding("image_size", "dataset", 256, "d"),
        Finding("padding", "dataset", "black", "d"),
        Finding("marker", "collator", "image token", "c"),
        Finding("max_tokens", "train-config", 32, "t"),
        Finding("output", "collator", "label", "c"),
        Finding("sampling", "train-config", "greedy", "t"),
        Finding("images_per_prompt", "collator", 1, "c"),
    ]
    found = rows(document, contract)
    assert missing(found, ["dataset", "collator", "train-config"]) == []
    assert verdict(found, []) == "ALIGNED"
    lacking = missing(found[1:], ["dataset"])
    assert [(one.aspect, one.side) for one in lacking] == [("image_size", "training")]
    assert "--dataset" in lacking[0].supply
    assert verdict(found[1:], lacking) == "UNREAD"
    assert len(missing(found, ["dataset", "app"])) == 6


def test_what_was_confirmed_and_has_changed_is_missing(contract: Contract) -> None:
    (row,) = rows([Finding("context", "app", None, ".", is_open=True)], contract)
    assert "context" in [one.aspect for one in missing([row], ["app"])]


def test_the_documents_rows_come_first(contract: Contract) -> None:
    found = rows(
        [
            Finding("threads", "app", 4, "a.kt:1"),
            Finding("resize", "app", "android", "a.kt:2"),
            Finding("max_tokens", "app", 128, "a.kt:3"),
        ],
        contract,
    )
    assert [row.aspect for row in found] == ["max_tokens", "resize", "threads"]
    assert verdict(found, []) == "MISALIGNED"


def test_a_match_worth_knowing_says_so(contract: Contract) -> None:
    found = rows(
        [
            Finding("cache_type_k", "app", "q4_0", "a.cpp:1"),
            Finding("answer_reading", "app", "contains", "a.kt:1"),
        ],
        contract,
    )
    assert all(row.match and row.impact for row in found)


def test_two_sides_that_differ_in_the_same_way_are_told_to_agree(contract: Contract) -> None:
    both = [
        Finding("channels", "app", "bgr", "a.cpp:1"),
        Finding("channels", "dataset", "bgr", "d"),
    ]
    assert all("agree" in row.note for row in rows(both, contract))


def test_pixels_cost_levels_and_texts_show_where_they_part(contract: Contract) -> None:
    gauge = Gauge(contract)
    found = rows(
        [Finding("channels", "app", "bgr", "a"), Finding("after_marker", "app", "", "b")], contract
    )
    channels, gap = sorted((gauge.measured(row) for row in found), key=lambda row: row.where)
    assert channels.impact is not None
    assert "of 255 levels" in channels.impact
    assert gap.impact is not None
    assert "from character 11 on" in gap.impact


def test_a_row_has_the_documented_keys(contract: Contract) -> None:
    (row,) = rows([Finding("labels", "dataset", contract.answer.labels, "d")], contract)
    document = json.loads(json.dumps(row.as_json()))
    assert list(document)[:6] == ["aspect", "contract", "found", "where", "match", "impact"]
    assert document["found"] == list(contract.answer.labels)
