"""A training's chart, drawn from its metrics alone."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image

from driftloop.reports import training


def test_losses_and_held_out_accuracy_are_drawn(tmp_path: Path) -> None:
    assert training.chart(tmp_path) is None
    assert not list(tmp_path.iterdir())
    losses = [{"step": step, "loss": 10 / step, "learning_rate": 1e-4} for step in range(1, 21)]
    held_out = {"right": 7, "cases": 10, "unread": 0, "label_logprob": -1.0}
    colours = []
    for lines in (losses, [*losses, {"step": 20, "held_out": held_out}]):
        (tmp_path / "training").mkdir(exist_ok=True)
        text = "".join(f"{json.dumps(line)}\n" for line in lines)
        (tmp_path / "training" / "metrics.jsonl").write_text(text)
        drawn = training.chart(tmp_path)
        assert drawn is not None
        with Image.open(drawn) as image:
            colours.append(len(image.convert("RGB").getcolors(1 << 20) or []))
    assert colours[1] > colours[0]
