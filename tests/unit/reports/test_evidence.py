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

from harness.judgement import gating
from harness.records.inquiry import Inquiry, LayerComparison, LayerDistance
from harness.records.record import Stop
from reports import summary
from reports.evidence.document import Evidence, gather
from reports.evidence.layers import layer_tolerance

if TYPE_CHECKING:
    from tests.unit.reports.conftest import RunWriter

Writer = Callable[..., "RunWriter"]
REAL_PHONE = "R5CT10ABCDE"
PHONE_ARM, APP_ARM = "phone:q8_0+app", "desktop:q8_0+app"
PHONE = (PHONE_ARM, REAL_PHONE)


def _gathered(writer: RunWriter) -> Evidence:
    return gather(summary.load(writer.write()))


def _looked_at(place: int, distances: dict[str, float]) -> LayerComparison:
    return LayerComparison(
        reference="torch",
        reference_phone=None,
        candidate="desktop:f16",
        phone=None,
        case_id="water/000.png",
        session=0,
        position=place,
        layers=tuple(LayerDistance(name=name, distance=one) for name, one in distances.items()),
    )


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
    writer = run_writer(phones=(REAL_PHONE,), answers={(*PHONE, 7): "water"})
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


def test_the_blamed_layer_is_marked_between_those_before_and_after(run_writer: Writer) -> None:
    distances = {
        "pixels": 0.0,
        "vision layer 0 attention": 1e-5,
        "vision layer 0 ffn": 0.2,
        "vision norm": 0.3,
        "embed": 0.4,
        "prefill": 0.5,
    }
    smaller = {name: distance / 2 for name, distance in distances.items()}
    moved = dict.fromkeys(("desktop:f16", "desktop:q8_0", APP_ARM), 0.3)
    inquiry = Inquiry(layers=(_looked_at(0, smaller), _looked_at(1, distances)))
    writer = run_writer(arms=("torch", *moved), phones=(), apart=moved, inquiry=inquiry)
    (found,) = _gathered(writer).layers
    assert (found.hop, found.cases) == ("conversion", 2)
    assert found.first_beyond == "vision layer 0 ffn"
    assert found.blamed == ("vision layer 0 ffn",)
    assert [one.kind for one in found.plot.dots] == ["plain", "plain", "bad", *["open"] * 3]
    assert "vision layer 0 ffn: 0.2," in found.plot.dots[2].text
    assert [tick.text for tick in found.plot.x_ticks if "ffn" in tick.text]


@pytest.mark.parametrize(
    ("name", "limit"),
    [("vision layer 3 ffn", 0.1), ("vision norm", 0.1), ("text norm", 0.2), ("embed", 0.3)],
)
def test_a_layer_is_held_against_its_towers_limit(name: str, limit: float) -> None:
    limits = {"vision_layer": 0.1, "text_layer": 0.2, "embed": 0.3}
    assert layer_tolerance(name, limits) == limit


def test_the_course_of_a_test_ends_where_it_decided(run_writer: Writer) -> None:
    writer = run_writer(cases=90, phones=(REAL_PHONE,), pictures=False, gates=gating.load())
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
        cases=90, phones=(REAL_PHONE,), pictures=False, gates=gating.load(), answers=wrong
    )
    platform = _gathered(writer).courses[-1]
    assert platform.decision.outcome == "reject"
    assert platform.plot is not None
    assert platform.plot.dots[0].kind == "bad"


def test_shares_have_no_course(run_writer: Writer) -> None:
    assert _gathered(run_writer(phones=())).courses == ()


def test_why_a_phone_stopped_stands_with_its_course(run_writer: Writer) -> None:
    loaded = summary.load(
        run_writer(cases=90, phones=(REAL_PHONE,), pictures=False, gates=gating.load()).write()
    )
    stop = Stop(arm=PHONE_ARM, phone=REAL_PHONE, images=72, why="decided")
    record = loaded.record.model_copy(update={"stops": (stop,)})
    courses = gather(replace(loaded, record=record)).courses
    assert [one.stopped for one in courses] == [None, None, None, "decided"]


def test_canaries_are_no_evidence_of_the_cases(run_writer: Writer) -> None:
    loaded = summary.load(run_writer(phones=(REAL_PHONE,), leaking={PHONE}).write())
    assert len(loaded.observations) == 5 * 24
    assert [len(plot.dots) for plot in gather(loaded).margins] == [24] * 4
    assert loaded.cases == ()
    assert len(loaded.sessions) == 8
    assert loaded.conditions[0].images == 24


def _pixels(url: str | None) -> np.ndarray:
    assert url is not None
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))).convert("RGB"))
