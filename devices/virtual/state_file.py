"""How a test changes what a virtual phone says while it runs.

`StateFile(path).update(thermal_status=3)` rewrites the state and everything that is printed from
it, atomically, so that the phone's next `dumpsys` already says so.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from filelock import FileLock

from devices.virtual import answers
from devices.virtual.state import Hardware, PhoneState


class StateFile:
    """The state of one phone on this host's disk, beside what is printed from it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> PhoneState:
        """The state as last written."""
        return PhoneState.model_validate_json(self.path.read_text())

    def update(self, **changes: object) -> PhoneState:
        """Changes the named fields; pydantic's ValidationError when a value is not allowed."""
        with self._locked():
            old = self.read()
            new = PhoneState.model_validate({**old.model_dump(), **changes})
            self._write(new, self._cores(), replacing=True)
        return new

    def heat(self, celsius: float, status: int) -> PhoneState:
        """Sets the skin temperature together with the thermal status that goes with it."""
        old = self.read()
        sensors = tuple(
            s.model_copy(update={"celsius": celsius, "status": status}) if s.name == "SKIN" else s
            for s in old.sensors
        )
        return self.update(sensors=sensors, thermal_status=status)

    def create(self, hardware: Hardware, state: PhoneState) -> None:
        """Writes the first state and all that never changes."""
        (self.path.parent / answers.BOOT_ID).parent.mkdir(parents=True, exist_ok=True)
        _replace(self.path.parent / "hardware.prop", answers.hardware_properties(hardware))
        for name, text in answers.processor_files(hardware).items():
            _replace(self.path.parent / name, text)
        with self._locked():
            self._write(state, hardware.cores, replacing=False)

    def _locked(self) -> FileLock:
        return FileLock(self.path.with_suffix(".lock"))

    def _cores(self) -> int:
        return len(list((self.path.parent / answers.CPU_FOLDER).glob("cpu[0-9]*")))

    def _write(self, state: PhoneState, cores: int, *, replacing: bool) -> None:
        folder = self.path.parent
        for name, text in answers.answers(state, cores).items():
            _replace(folder / name, text)
        # Bound over one file of /proc, and such a bind follows the file and not its name: written
        # in place, and without cutting it first, since a reader must never find it empty.
        with (folder / answers.BOOT_ID).open("r+" if replacing else "w") as out:
            out.write(f"{state.boot_id}\n")
        _replace(self.path, state.model_dump_json(indent=1))


def _replace(path: Path, text: str) -> None:
    """Writes a file so that a reader sees the old text or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    with os.fdopen(handle, "w") as out:
        out.write(text)
    temporary = Path(name)
    temporary.chmod(0o644)
    temporary.replace(path)
