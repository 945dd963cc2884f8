"""A training's chart, drawn from its metrics alone."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image

from reports import training


def test_before_the_first_step_there_is_nothing_to_draw(tmp_path: Path) -> None:
    assert training.chart(tmp_path) is None
    assert not list(tmp_path.iterdir())


def test_losses_and_held_out_accuracy_are_drawn(tmp_path: Path) -> None:
    losses = [{"step": step, "loss": 10 / step, "learning_rate": 1e-4} for step in range(1, 21)]
    _write(tmp_path, losses)
    alone = training.chart(tmp_path)
    assert alone is not None
    colours_alone = _colours(alone)
    held_out = {"right": 7, "cases": 10, "unread": 0, "label_logprob": -1.0}
    _write(tmp_path, [*losses, {"step": 20, "held_out": held_out}])
    both = training.chart(tmp_path)
    assert both is not None
    assert _colours(both) > colours_alone


def _write(folder: Path, lines: list[dict[str, object]]) -> None:
    text = "".join(f"{json.dumps(line)}\n" for line in lines)
    (folder / "training").mkdir(exist_ok=True)
    (folder / "training" / "metrics.jsonl").write_text(text)


def _colours(path: Path) -> int:
    with Image.open(path) as image:
        return len(image.convert("RGB").getcolors(1 << 20) or [])
