"""A training's chart: the loss of every step and the accuracy on held-out images."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from driftloop.harness.training.folder import WORK, metrics

CHART_NAME: Final = "chart.png"
_INK, _LOSS, _ACCURACY = "#333333", "#9aa5b1", "#c2410c"


def chart(folder: Path) -> Path | None:
    """Draw `chart.png` from the training folder's metrics; None where no step was taken yet.

    Raises:
        OSError: the folder cannot be written.
    """
    lines = metrics(folder)
    losses = [(line["step"], line["loss"]) for line in lines if "loss" in line]
    held_out = [(line["step"], line["held_out"]) for line in lines if "held_out" in line]
    if not losses:
        return None
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), dpi=120, layout="constrained")
    left = figure.subplots()
    left.plot(*zip(*losses, strict=True), color=_LOSS, linewidth=1)
    left.set_xlabel("step")
    left.set_ylabel("loss, nats per answer token", color=_INK)
    left.set_ylim(bottom=0)
    if held_out:
        right = left.twinx()
        steps = [step for step, _ in held_out]
        shares = [100 * said["right"] / said["cases"] for _, said in held_out]
        right.plot(steps, shares, color=_ACCURACY, marker="o", markersize=4)
        right.set_ylabel(f"correct of {held_out[-1][1]['cases']} held out, %", color=_ACCURACY)
        right.set_ylim(0, 100)
    for axes in figure.axes:
        axes.spines["top"].set_visible(False)
    path = folder / WORK / CHART_NAME
    figure.savefig(path)
    return path
