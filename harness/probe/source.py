"""The test class that an app's developer fills in."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Final, Literal

from harness.errors import BadInput

Language = Literal["kotlin", "java"]

CLASS: Final = "dev.driftloop.DriftloopProbe"
_ENDINGS: Final[dict[Language, str]] = {"kotlin": "kt", "java": "java"}


def write(folder: Path, language: Language) -> Path:
    """Write the class below `folder`, in the folders of its package; returns its path.

    Raises:
        BadInput: it is there already (it may be filled in), or cannot be written.
    """
    name = f"{CLASS.rpartition('.')[2]}.{_ENDINGS[language]}"
    target = folder.joinpath(*CLASS.split(".")[:-1], name)
    text = (resources.files(__package__) / name).read_text("utf-8")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise BadInput(f"{target} is there already; remove it to have it written anew") from error
    except OSError as error:
        raise BadInput(f"{target}: cannot be written: {error.strerror}") from error
    return target
