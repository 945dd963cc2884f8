"""What stands below a verdict: pictures, tokens, margins, layers, the course of a test."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from harness import gates_file, ladder
from harness.records.inquiry import Inquiry
from harness.records.record import Stop
from reports.evidence.document import Evidence, gather
from tests.unit.harness.run_factory import OUTPUTS, driven_case, floor
from tests.unit.reports.run_reports import summarized

if TYPE_CHECKING:
    from tests.unit.reports.conftest import RunWriter

Writer = Callable[..., "RunWriter"]
REAL_PHONE = "R5CT10ABCDE"
PHONE_ARM, APP_ARM = "phone:q8_0+app", "desktop:q8_0+app"
PHONE = (PHONE_ARM, REAL_PHONE)


def _gathered(writer: RunWriter) -> Evidence:
    return gather(summarized(writer.write()))


def test_other_pixels_stand_side_by_side_with_their_difference(run_writer: Writer) -> None:
    writer = run_writer(phones=(REAL_PHONE,), other_pixels={(*PHONE, 7)})
    (pair,) = _gathered(writer).pixels
    assert (pair.hop, pair.case_id) == (f"platform on {REAL_PHONE}", "fire/007.png")
    shown = [_pixels(url) for url in (pair.reference, pair.candidate, pair.difference)]
    assert (shown[1] == shown[0][:, :, ::-1]).all()
    apart = np.abs(shown[0].astype(int) - shown[1].astype(int))
    assert (shown[2] == apart * pair.amplified).all()
    assert pair.largest == apart.max()
    assert pair.amplified == 255 // pair.largest
    assert pair.changed == pytest.approx((apart.max(axis=2) > 0).mean())


def test_pictures_that_were_not_kept_are_told_by_their_hashes_alone(run_writer: Writer) -> None:
    writer = run_writer(phones=(REAL_PHONE,), other_pixels={(*PHONE, 7)}, pictures=False)
    (pair,) = _gathered(writer).pixels
    assert pair.reference is pair.candidate is pair.difference is None


def test_the_token_at_which_answers_part_stands_with_both_sides_rivals(run_writer: Writer) -> None:
    writer = run_writer(phones=(REAL_PHONE,), answers={(*PHONE, 7): "water"})
    partings = _gathered(writer).partings
    assert partings.keys() == {(*PHONE, 2, 1)}
    found = partings[*PHONE, 2, 1]
    assert (found.step, found.before) == (1, "")
    ours, theirs = found.rivals[:2]
    assert (ours.piece, ours.chosen_by_reference, ours.chosen_by_candidate) == ("fire", True, False)
    assert (theirs.piece, theirs.chosen_by_candidate) == ("water", True)
    assert all(one.reference is not None and one.candidate is not None for one in found.rivals)
    assert len(found.rivals) == 5


def test_every_case_has_a_mark_and_a_flip_another(run_writer: Writer) -> None:
    answers, measured = {(*PHONE, 7): "water"}, Inquiry(floors=(floor(APP_ARM),))
    writer = run_writer(phones=(REAL_PHONE,), answers=answers, inquiry=measured)
    plots = _gathered(writer).margins
    assert [plot.title for plot in plots] == [
        "Margins: conversion",
        "Margins: quantization",
        "Margins: runtime",
        f"Margins: platform on {REAL_PHONE}",
    ]
    assert [len(plot.dots) for plot in plots] == [24] * 4
    bad = [one.text for one in plots[-1].dots if one.kind == "bad"]
    assert len(bad) == 1
    assert bad[0].startswith("fire/007.png: ")
    (limit,) = plots[-1].lines
    assert limit.kind == "limit"


def test_the_blamed_layer_is_marked_among_the_others(run_writer: Writer) -> None:
    arms = ("torch", "desktop:f16")
    (hop,) = ladder.hops(ladder.parse_ladder(arms), ())
    broken = {"vision layer 1 ffn": 0.2, "vision norm": 0.3}
    inquiry = Inquiry(driven=(driven_case(hop, 0, broken), driven_case(hop, 1)))
    (found,) = _gathered(run_writer(arms=arms, phones=(), inquiry=inquiry)).layers
    assert (found.hop, found.cases) == ("conversion", 2)
    assert found.first_beyond == "vision layer 1 ffn"
    assert found.blamed == ("vision layer 1 ffn",)
    assert [one.text.split(":")[0] for one in found.plot.dots] == [*OUTPUTS[1:]]
    marked = {one.text.split(":")[0]: one.kind for one in found.plot.dots if one.kind != "plain"}
    assert marked == {"vision layer 1 ffn": "bad", "vision norm": "open"}
    assert found.plot.dots[4].text.startswith("vision layer 1 ffn: error 0.2 (limit 0.0")
    assert "vision layer 1 ffn" in [tick.text for tick in found.plot.x_ticks]
    assert [one.kind for one in found.plot.lines] == ["plain", "limit"]


def test_a_hop_that_was_not_driven_shows_no_layers(run_writer: Writer) -> None:
    assert _gathered(run_writer(phones=())).layers == ()


def test_the_course_of_a_test_ends_where_it_decided(run_writer: Writer) -> None:
    writer = run_writer(cases=90, phones=(REAL_PHONE,), pictures=False, gates=gates_file.load())
    platform = _gathered(writer).courses[-1]
    assert platform.hop == f"platform on {REAL_PHONE}"
    assert (platform.decision.outcome, platform.images) == ("accept", 90)
    assert platform.decision.images < 90
    assert platform.plot is not None
    assert [one.kind for one in platform.plot.lines] == ["reject", "accept", "plain"]
    (end,) = platform.plot.dots
    assert end.text == f"accept after {platform.decision.images} images"


def test_flips_lead_the_course_to_its_rejection(run_writer: Writer) -> None:
    wrong = {(*PHONE, case): "wood" if case % 5 != 3 else "metal" for case in range(0, 90, 6)}
    writer = run_writer(
        cases=90, phones=(REAL_PHONE,), pictures=False, gates=gates_file.load(), answers=wrong
    )
    platform = _gathered(writer).courses[-1]
    assert platform.decision.outcome == "reject"
    assert platform.plot is not None
    assert platform.plot.dots[0].kind == "bad"


def test_why_a_phone_stopped_stands_with_its_course(run_writer: Writer) -> None:
    loaded = summarized(
        run_writer(cases=90, phones=(REAL_PHONE,), pictures=False, gates=gates_file.load()).write()
    )
    stop = Stop(arm=PHONE_ARM, phone=REAL_PHONE, images=72, why="decided")
    record = loaded.record.model_copy(update={"stops": (stop,)})
    courses = gather(replace(loaded, record=record)).courses
    assert [one.stopped for one in courses] == [None, None, None, "decided"]


def test_canaries_are_no_evidence_of_the_cases(run_writer: Writer) -> None:
    loaded = summarized(run_writer(phones=(REAL_PHONE,), leaking={PHONE}).write())
    assert len(loaded.observations) == 5 * 24
    assert [len(plot.dots) for plot in gather(loaded).margins] == [24] * 4
    assert loaded.cases == ()
    assert len(loaded.sessions) == 8
    assert loaded.conditions[0].images == 24


def _pixels(url: str | None) -> np.ndarray:
    assert url is not None
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))).convert("RGB"))
