"""App sources as test data: four whole apps under `apps/`, and small edits of them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

from harness import contract as contracts
from harness.audit import app_source
from harness.audit.aspects import BY_KEY
from harness.audit.findings import Finding

APPS = Path(__file__).parent / "apps"

MANAGER = "app/src/main/java/com/example/elements/vlm/SmolVlmManager.kt"
CLASSIFIER = "app/src/main/java/com/example/elements/ElementClassifier.kt"
ACTIVITY = "app/src/main/java/com/example/elements/ReadingActivity.kt"
LLAMA = "llama/src/main/java/android/llama/cpp/LLamaAndroid.kt"
ENGINE = "llama/src/main/cpp/llama-android.cpp"
VISION = "llama/src/main/cpp/llama-android-vlm.cpp"


class Edit(NamedTuple):
    """Text of one file replaced; it has to be there once."""

    file: str
    old: str
    new: str


ALIGNED = (
    Edit(
        VISION,
        """            uint32_t rgba = rgba_pixels[idx];
            rgb[idx * 3 + 0] = (rgba >> 16) & 0xFF;
            rgb[idx * 3 + 1] = (rgba >> 8) & 0xFF;
            rgb[idx * 3 + 2] = rgba & 0xFF;
""",
        """            uint32_t rgba = rgba_pixels[idx];
            rgb[idx * 3 + 0] = rgba & 0xFF;
            rgb[idx * 3 + 1] = (rgba >> 8) & 0xFF;
            rgb[idx * 3 + 2] = (rgba >> 16) & 0xFF;
""",
    ),
    Edit(ENGINE, "ALL_LAYERS = 99", "ALL_LAYERS = 0"),
    Edit(VISION, "params.use_gpu = true;", "params.use_gpu = false;"),
    Edit(MANAGER, "mmproj-SmolVLM2-500M-Video-Instruct-Q8_0", "mmproj-elements-smolvlm2-500m-f16"),
)
"""What brings the app as shipped in line with the contract `default`."""


def edited(folder: Path, app: str, *edits: Edit) -> Path:
    """A copy of an app with those edits made."""
    copy = folder / app
    shutil.copytree(APPS / app, copy)
    for edit in edits:
        path = copy / edit.file
        text = path.read_text()
        assert text.count(edit.old) == 1, f"{edit.old!r} in {edit.file}"
        path.write_text(text.replace(edit.old, edit.new))
    return copy


def read(folder: Path, contract: str = "default") -> dict[str, Finding]:
    """The findings by aspect."""
    return {f.aspect: f for f in app_source.read(folder, contracts.load(contract))}


def mismatches(found: dict[str, Finding], contract: str = "default") -> dict[str, object]:
    """The aspects whose value is known and is not the contract's."""
    table = contracts.load(contract)
    wanted = {key: BY_KEY[key].expected(table) for key in found}
    return {
        key: finding.value
        for key, finding in found.items()
        if None not in (finding.value, wanted[key]) and finding.value != wanted[key]
    }
