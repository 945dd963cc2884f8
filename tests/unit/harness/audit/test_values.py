"""Values as people write them, in the audit's words; what is none of them is None."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from driftloop.harness.audit import values


@pytest.mark.parametrize(
    ("read", "written", "meant"),
    [
        (values.sides, 256, (256,)),
        (values.sides, "512x384", (512, 384)),
        (values.sides, [256, 300], (256, 300)),
        (values.sides, "256 px", (256,)),
        (values.sides, True, ()),
        (values.truth, "off", False),
        (values.truth, 1, True),
        (values.truth, 2, None),
        (values.colour, "#FFFFFF", "white"),
        (values.colour, [1.0, 1.0, 1.0], "white"),
        (values.colour, 128, "rgb 128 128 128"),
        (values.colour, "constant", "black"),
        (values.colour, "max_length", None),
        (values.filter_name, "cv2.INTER_CUBIC", "bicubic"),
        (values.filter_name, "Image.Resampling.LANCZOS", "lanczos"),
        (values.filter_name, 3, "bicubic"),
        (values.filter_name, 9, None),
        (values.sampling, {"do_sample": False, "temperature": 0.7}, "greedy"),
        (values.sampling, {"temperature": 0.7, "top_p": 0.9}, "temperature 0.7, top-p 0.9"),
        (values.sampling, {"num_beams": 4}, "4 beams"),
    ],
)
def test_a_value_is_read_however_it_is_written(
    read: Callable[[object], object], written: object, meant: object
) -> None:
    assert read(written) == meant
