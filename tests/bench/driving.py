"""What driving three cases costs against answering them: on this host, and on a phone."""

from __future__ import annotations

import itertools
import tempfile
from collections import deque
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

from driftloop.devices import adb, virtual
from driftloop.fixtures import real_size
from driftloop.harness import bundle as bundles
from driftloop.harness import contract as contracts
from driftloop.harness import ladder
from driftloop.harness.arms import trajectory
from driftloop.harness.arms.base import Side
from driftloop.harness.arms.desktop import DesktopArm
from driftloop.harness.arms.phone import PhoneArm
from driftloop.harness.progress import Unseen
from tests.bench.ratios import Row, in_turn, timed_s
from tests.bench.runners import prepared

CASES = 3
ROUNDS = 3


def rows() -> list[Row]:
    """Two rows, at real size. On the phone a process loads the model each time, for both alike."""
    bundle, contract = bundles.load(real_size.bundle(print)), contracts.load("default")
    here, there = ladder.parse_ladder(("desktop:q8_0+app", "phone:q8_0+app"), bundle.quants)
    runs = itertools.count()
    with virtual.started("x86_64") as lent, tempfile.TemporaryDirectory() as scratch:
        phone, folder = adb.find(lent.serial), Path(scratch)
        images = [prepared(folder, "wood", place) for place in range(CASES)]

        def on_phone() -> PhoneArm:
            """Of a run of its own: another would find its answers on the phone."""
            run = f"bench-{next(runs)}"
            return PhoneArm(there, Side(contract, bundle), phone, run, Unseen())

        with closing(DesktopArm(bundle, "q8_0", contract.runtime, contract, here.name)) as arm:
            ways = [
                (image, trajectory.write(look, folder / f"{image.case_id}.safetensors"))
                for image, look in zip(images, arm.record(images), strict=True)
            ]
            desktop = in_turn(
                lambda: timed_s(lambda: _spent(arm.drive(ways))),
                lambda: timed_s(lambda: _spent(arm.observe(images))),
                ROUNDS,
            )
        mobile = in_turn(
            lambda: timed_s(lambda: _spent(on_phone().drive(ways))),
            lambda: timed_s(lambda: _spent(on_phone().observe(images))),
            ROUNDS,
        )
    return [
        Row(
            f"driving {CASES} cases against answering them, {where}",
            f"{driven_s:.1f} to {answered_s:.1f} s, {factor:.2f} x",
        )
        for where, (driven_s, answered_s, factor) in (("desktop", desktop), ("phone", mobile))
    ]


def _spent(observations: Iterable[object]) -> None:
    deque(observations, maxlen=0)
