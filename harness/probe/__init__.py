"""The app asked by driftloop: a test class that runs the app's own code on a phone, and its lines.

The class (Kotlin or Java), which the app's developer fills in, goes into the app's `androidTest`.
Images are pushed, the class is started and its lines are fetched, one an image, in the form of
docs/app-observations.md. All that must outlive this process lies on the phone, in one folder a run:
images, attempts to start the app and their log. The same call goes on with what is there.
"""

from __future__ import annotations

import re
import shlex
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Final, Literal

from driftloop.devices.hashing import file_sha256
from driftloop.devices.phone import REMOTE_ROOT, Phone, RemoteProcess
from driftloop.harness.arms import app as app_lines
from driftloop.harness.atomic import write_text
from driftloop.harness.errors import AppRunFailed, BadInput

Progress = Callable[[int, int], None]
"""Images answered, images asked for."""

Language = Literal["kotlin", "java"]

CLASS: Final = "dev.driftloop.DriftloopProbe"
_ENDINGS: Final[dict[Language, str]] = {"kotlin": "kt", "java": "java"}
RUNNER: Final = "androidx.test.runner.AndroidJUnitRunner"
LINES: Final = "observations.jsonl"
_STATE: Final = "app-run"
_POLL_S: Final = 0.5
_IMAGE_LIMIT_S: Final = 900.0
"""Without a new line the app is stuck; driftloop's own runner has the same limit for an image."""
_BEGIN_LIMIT_S: Final = 20.0
_MOST_SAID: Final = 4

# `mkdir` is what makes a start happen once: a start whose reply was lost is not done again.
_ONCE: Final = 'mkdir "$0" && cat /proc/$$/stat >"$0/stat" && exec "$@"'


def write(folder: Path, language: Language) -> Path:
    """Write the class below `folder`, in the folders of its package; returns its path. Raises
    BadInput where it is there already (it may be filled in), or cannot be written."""
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


@dataclass(frozen=True)
class App:
    """What is started, and where it writes."""

    package: str
    start: str | None = None
    """A command of the phone's shell in place of `am instrument`. It finds the folder of images in
    $DRIFTLOOP_IMAGES and writes its lines into $DRIFTLOOP_OUT."""
    runner: str = RUNNER

    def __post_init__(self) -> None:
        if not re.fullmatch(r"\w+(\.\w+)+", self.package):
            raise BadInput(f"{self.package!r} is no package; write it as in com.example.app")

    def argv(self, run: str, images: str, results: str) -> list[str]:
        """The command."""
        if self.start is not None:
            folders = (f"DRIFTLOOP_IMAGES={images}", f"DRIFTLOOP_OUT={results}")
            return ["env", *folders, "sh", "-c", self.start]
        extras = ("-e", "class", CLASS, "-e", "images", images, "-e", "run", run)
        return ["am", "instrument", "-w", *extras, f"{self.package}.test/{self.runner}"]

    def results(self, run: str, folder: str) -> str:
        """Where its lines appear: an app can write into its own folders alone."""
        if self.start is not None:
            return f"{folder}/results"
        return f"/sdcard/Android/data/{self.package}/files/driftloop/{run}"


def ask(phone: Phone, app: App, images: Sequence[Path], out: Path, progress: Progress) -> Path:
    """Have `app` answer `images`; returns the file of its lines below `out`, for `run --app`.

    Lost connections are waited for. After a fault, or when this process was ended, the same call
    goes on: images that were answered are not asked again.

    Raises:
        AppRunFailed: the app ended without a line for each image, or is stuck; the lines it wrote
            lie in `out`.
        BadInput: `out` is of another run, or a line that cannot be used.
        DeviceError: the phone did not come back, or refuses something.
    """
    run = _run_name(out)
    folder = f"{REMOTE_ROOT}/app/{run}"
    results = app.results(run, folder)
    asked = {file_sha256(path): path for path in images}
    with phone.lease():
        phone.patiently(lambda: _push(phone, asked, f"{folder}/images"))
        process = _running(phone, folder)
        if process is None and _answered(phone, results) < len(asked):
            phone.patiently(lambda: phone.shell(f"mkdir -p {shlex.quote(folder)}/results"))
            process = _start(phone, folder, app.argv(run, f"{folder}/images", results))
        answered, is_stuck = _follow(phone, process, results, len(asked), progress)
        if answered < len(asked):
            if answered:  # as they are: the last may be torn
                phone.patiently(lambda: phone.pull(f"{results}/{LINES}", out / LINES))
            raise AppRunFailed(_why(phone, folder, answered, len(asked), is_stuck))
        lines = app_lines.pulled(phone, f"{results}/{LINES}", out)
        phone.patiently(lambda: phone.shell(f"rm -rf {shlex.join([folder, results])}"))
    (out / _STATE).unlink()
    return lines


def _run_name(out: Path) -> str:
    """The name of the run that `out` belongs to; a new one where it holds nothing yet."""
    state = out / _STATE
    if state.is_file():
        return state.read_text("utf-8").strip()
    if (out / LINES).exists():
        raise BadInput(f"{out} holds a finished run of the app; name another folder with --out")
    out.mkdir(parents=True, exist_ok=True)
    run = uuid.uuid4().hex[:16]
    write_text(state, f"{run}\n")
    return run


def _push(phone: Phone, asked: dict[str, Path], remote: str) -> None:
    """Each image under its hash, once: two of the same name may differ."""
    there = phone.shell(f"cd {shlex.quote(remote)} && sha256sum *", check=False).stdout
    sums = (line.split(maxsplit=1) for line in there.splitlines())
    whole = {parts[0] for parts in sums if len(parts) == 2 and parts[1].startswith(parts[0])}
    for sha256, path in asked.items():
        if sha256 not in whole:
            phone.push(path, f"{remote}/{sha256}{path.suffix.lower()}")
    # The app is another user than the shell.
    phone.shell(f"chmod -R a+rX {shlex.quote(remote)}")


def _start(phone: Phone, folder: str, argv: Sequence[str]) -> RemoteProcess | None:
    """A new attempt; None where it has ended already."""
    attempt = f"{folder}/attempt-{len(_attempts(phone, folder))}"
    command = ["sh", "-c", _ONCE, attempt, *argv]
    phone.patiently(lambda: phone.spawn(command, log=f"{folder}/log"))
    deadline = time.monotonic() + _BEGIN_LIMIT_S
    while time.monotonic() < deadline:
        if phone.patiently(lambda: phone.exists(f"{attempt}/stat")):
            break
        time.sleep(_POLL_S)
    return _running(phone, folder)


def _printed(phone: Phone, command: str) -> str:
    """What a command prints that may be repeated; nothing where what it asks for is not there."""
    return phone.patiently(lambda: phone.shell(command, check=False).stdout)


def _attempts(phone: Phone, folder: str) -> list[str]:
    return _printed(phone, f"ls -d {shlex.quote(folder)}/attempt-*").split()


def _running(phone: Phone, folder: str) -> RemoteProcess | None:
    """The last attempt's process, if it still runs."""
    attempts = _attempts(phone, folder)
    if not attempts:
        return None
    last = f"{folder}/attempt-{len(attempts) - 1}"
    if not (stat := _printed(phone, f"cat {shlex.quote(last)}/stat")):
        return None
    process = RemoteProcess.of_stat(stat)
    return process if phone.patiently(lambda: phone.alive(process)) else None


def _answered(phone: Phone, results: str) -> int:
    """Whole lines that the app has written."""
    printed = _printed(phone, f"wc -l <{shlex.quote(f'{results}/{LINES}')}").strip()
    return int(printed) if printed.isdigit() else 0


def _follow(
    phone: Phone, process: RemoteProcess | None, results: str, asked: int, progress: Progress
) -> tuple[int, bool]:
    """Until the app has ended: how many images it answered, and whether it had to be given up."""
    answered = _answered(phone, results)
    progress(answered, asked)
    last = time.monotonic()
    while process is not None and phone.patiently(lambda: phone.alive(process)):
        time.sleep(_POLL_S)
        if (now := _answered(phone, results)) > answered:
            answered, last = now, time.monotonic()
            progress(answered, asked)
        elif time.monotonic() - last > _IMAGE_LIMIT_S:
            phone.kill(process)
            return answered, True
    answered = _answered(phone, results)
    progress(answered, asked)
    return answered, False


def _why(phone: Phone, folder: str, answered: int, asked: int, is_stuck: bool) -> str:
    log = _printed(phone, f"tail -n 40 {shlex.quote(f'{folder}/log')}")
    said = [line.strip() for line in log.splitlines() if line.strip()][-_MOST_SAID:]
    ending = f"wrote nothing for {_IMAGE_LIMIT_S:.0f} s" if is_stuck else "ended"
    return (
        f"{phone.serial}: the app {ending} with {answered} of {asked} images answered; "
        f"it said: {' | '.join(said) or 'nothing'}; the same command goes on"
    )
