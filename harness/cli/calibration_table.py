"""What a calibration measured, as a table and as one JSON document."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from harness.calibration.limits import KEYS

if TYPE_CHECKING:
    from rich.console import Group

    from harness.calibration import Calibration

_WORDS: Final = {
    "pixels": "pixel values",
    "embed": "image embeddings",
    "prefill": "first-step logits",
    "vision_layer": "vision layers",
    "text_layer": "text layers",
    "label_logprob": "label log-probability, nats",
    "margin": "margin of labels, nats",
}


def document(found: Calibration) -> dict[str, Any]:
    """Everything measured: pairs, the worst per hop, limits, provenance."""
    return {
        "pairs": [
            {
                "hops": list(one.pair.hops),
                "reference": one.pair.reference.name,
                "candidate": one.pair.candidate.name,
                "images": one.images,
                "images_looked_at": one.looks,
                "seen": asdict(one.seen),
            }
            for one in found.pairs
        ],
        "seen": {change: asdict(seen) for change, seen in found.seen.items()},
        "limits": found.limits,
        "calibration": found.provenance,
    }


def calibration_view(found: Calibration) -> Group:
    """Per hop and measure: what was seen, the limit it makes, and the default's."""
    from rich.console import Group
    from rich.table import Table

    table = Table("hop", "differing by", box=None, pad_edge=False)
    for title in ("seen", "limit", "default"):
        table.add_column(title, justify="right")
    for change, seen in found.seen.items():
        hop: str = change
        for measure, key in KEYS.items():
            if (value := seen.of(measure)) is None:
                continue
            limit, default = found.limits[change][key], getattr(found.default[change], key)
            table.add_row(hop, _WORDS[measure], f"{value:.2g}", f"{limit:g}", f"{default:g}")
            hop = ""
    told = found.provenance
    line = (
        f"{told['images']} images, {told['images_looked_at']} of them layer by layer, "
        f"{len(found.pairs)} pairs of arms; limits are {told['factor']:g} times what was seen, "
        "margins as they are."
    )
    unmeasured = [change for change in found.default if change not in found.seen]
    kept = f"Not measured, as the default: {', '.join(unmeasured)}." if unmeasured else ""
    return Group(table, "", line, *filter(None, [kept]))
