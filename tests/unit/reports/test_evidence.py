"""What is shown below a verdict: pictures, margins, layers, the course of a test."""

from __future__ import annotations

import base64
import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from driftloop.harness import evaluation, gates_file, ladder
from driftloop.harness.records.inquiry import Inquiry
from driftloop.harness.records.record import Stop
from driftloop.reports.evidence import Evidence, gather
from driftloop.reports.pictures import PixelPair, data_urls, pixel_pair
from tests.unit.harness.run_factory import OUTPUTS, driven_case, floor
from tests.unit.reports import runs
from tests.unit.reports.runs import Writer


def _gathered(writer: runs.RunWriter) -> Evidence:
    loaded = writer.summary()
    return gather(loaded.evaluation, loaded.observations)


def _pixel_pair(writer: runs.RunWriter) -> PixelPair:
    ((hop, pair),) = _gathered(writer).pixels
    return pixel_pair(hop, *pair, data_urls(writer.path, [one.pixels_sha256 for one in pair]))


def test_other_pixels_stand_side_by_side_with_their_difference(run_writer: Writer) -> None:
    pair = _pixel_pair(run_writer(other_pixels={(*runs.PHONE, 7)}))
    assert (pair.hop, pair.case_id) == (f"platform on {runs.REAL_PHONE}", "fire/007.png")
    assert pair.arms == (runs.APP_ARM, runs.PHONE_ARM)
    found, shown = pair.difference, []
    for url in (*pair.pictures, found.url):
        assert url is not None
        content = io.BytesIO(base64.b64decode(url.split(",")[1]))
        shown.append(np.asarray(Image.open(content).convert("RGB")))
    assert (shown[1] == shown[0][:, :, ::-1]).all()
    apart = np.abs(shown[0].astype(int) - shown[1].astype(int))
    assert (shown[2] == apart * found.amplified).all()
    assert found.largest == apart.max()
    assert found.amplified == 255 // found.largest
    assert found.changed == pytest.approx((apart.max(axis=2) > 0).mean())


def test_of_pictures_that_were_not_kept_nothing_is_drawn(run_writer: Writer) -> None:
    pair = _pixel_pair(run_writer(other_pixels={(*runs.PHONE, 7)}, pictures=False))
    assert pair.pictures == (None, None)
    assert pair.difference.url is None


def test_every_case_has_a_mark_and_a_flip_another(run_writer: Writer) -> None:
    measured = Inquiry(floors=(floor(runs.APP_ARM),))
    # Canaries have no mark.
    writer = run_writer(answers=runs.FLIP, inquiry=measured, leaking={runs.PHONE})
    plots = _gathered(writer).margins
    assert [plot.title for plot in plots] == [
        "Margins: conversion",
        "Margins: quantization",
        "Margins: runtime",
        f"Margins: platform on {runs.REAL_PHONE}",
    ]
    assert [len(plot.dots) for plot in plots] == [24] * 4
    (bad,) = [one.text for one in plots[-1].dots if one.kind == "bad"]
    assert bad.startswith("fire/007.png: ")
    (limit,) = plots[-1].lines
    assert limit.kind == "limit"


def test_the_blamed_layer_is_marked_among_the_others(run_writer: Writer) -> None:
    arms = ("torch", "desktop:f16")
    (hop,) = ladder.hops(ladder.parse_ladder(arms), ())
    broken = {"vision layer 1 ffn": 0.2, "vision norm": 0.3}
    inquiry = Inquiry(driven=(driven_case(hop, 0, broken), driven_case(hop, 1)))
    ((plot, note),) = _gathered(run_writer(arms=arms, phones=(), inquiry=inquiry)).layers
    assert plot.title == "Driven layers: conversion"
    assert note.startswith("2 cases driven along the reference,")
    assert note.endswith("First beyond its limit: vision layer 1 ffn. Blamed: vision layer 1 ffn.")
    assert [one.text.split(":")[0] for one in plot.dots] == [*OUTPUTS[1:]]
    marked = {one.text.split(":")[0]: one.kind for one in plot.dots if one.kind != "plain"}
    assert marked == {"vision layer 1 ffn": "bad", "vision norm": "open"}
    assert plot.dots[4].text.startswith("vision layer 1 ffn: error 0.2 (limit 0.0")
    assert "vision layer 1 ffn" in [tick.text for tick in plot.x.ticks]
    assert [one.kind for one in plot.lines] == ["plain", "limit"]


def test_a_hop_that_was_not_driven_shows_no_layers(run_writer: Writer) -> None:
    assert _gathered(run_writer(phones=())).layers == ()


@pytest.fixture
def long_run(run_writer: Writer) -> Writer:
    """Runs long enough for the gates that ship."""
    return lambda **fields: run_writer(cases=90, pictures=False, gates=gates_file.load(), **fields)


def test_the_course_of_a_test_ends_where_it_decided(long_run: Writer) -> None:
    plot, note = _gathered(long_run()).courses[-1]
    assert plot is not None
    assert plot.title == f"The test: platform on {runs.REAL_PHONE}"
    assert [one.kind for one in plot.lines] == ["reject", "accept", "plain"]
    (end,) = plot.dots
    assert 0 < end.x < 90
    assert end.text == f"accept after {end.x} images"
    assert note.startswith(f"Accepted after {end.x} images with 0 real flips; wrongly rejected 0.")
    assert note.endswith(" 90 images were run.")


def test_flips_lead_the_course_to_its_rejection(long_run: Writer) -> None:
    wrong = {(*runs.PHONE, case): "wood" if case % 5 != 3 else "metal" for case in range(0, 90, 6)}
    plot, note = _gathered(long_run(answers=wrong)).courses[-1]
    assert note.startswith("Rejected after ")
    assert plot is not None
    assert plot.dots[0].kind == "bad"


def test_why_a_phone_stopped_stands_with_its_course(long_run: Writer) -> None:
    run = evaluation.load(long_run().write())
    stop = Stop(arm=runs.PHONE_ARM, phone=runs.REAL_PHONE, images=72, why="decided")
    record = run.record.model_copy(update={"stops": (stop,)})
    courses = gather(replace(run, record=record), run.observations).courses
    assert [note.partition(" Stopped: ")[2] for _, note in courses] == ["", "", "", "decided."]
