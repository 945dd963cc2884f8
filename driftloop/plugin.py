"""The pytest plugin: options, and the fixtures `phone`, `bundle` and `evaluation`.

pytest loads this module in every session of an environment with driftloop installed, so nothing
but pytest is imported until a test asks for one of the fixtures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

if TYPE_CHECKING:
    from driftloop.devices.phone import Phone
    from driftloop.harness.bundle import Bundle
    from driftloop.harness.evaluation import Evaluation

NO_BUNDLE = "no bundle to judge: give --driftloop-bundle DIR and --driftloop-images IMAGES"
NO_IMAGES = "--driftloop-bundle needs --driftloop-images: a folder, a glob, or a manifest"
DELIVERY = "observations"
"""Not a gate of the file but what all of them need: that every arm answered every case."""

_T = TypeVar("_T")
_REPORTS = pytest.StashKey[list[Path]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options of a release's acceptance test."""
    group = parser.getgroup("driftloop", "driftloop: does the phone say what the checkpoint says")
    for name, metavar, text in (
        ("bundle", "DIR", "the bundle to judge"),
        ("images", "IMAGES", "a folder, a glob, or a CSV/JSONL manifest"),
        ("contract", "NAME|FILE", "instead of the bundle's own"),
        ("training", "NAME|FILE", "the training side's contract"),
        ("gates", "FILE", "a gates file (TOML)"),
        ("out", "DIR", "where run folders are kept, one per phone"),
    ):
        group.addoption(f"--driftloop-{name}", metavar=metavar, help=text)
    group.addoption("--driftloop-quant", metavar="TYPE", default="q8_0", help="default: q8_0")
    group.addoption(
        "--driftloop-phone",
        metavar="SERIAL|all|virtual",
        action="append",
        help="a phone's serial, all attached phones (default), or a virtual one; may be repeated",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Prepare the list of reports."""
    config.stash[_REPORTS] = []


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test per phone and gate, named `<serial>-<gate>`; one skipped line without a bundle."""
    wants_phone = "driftloop_phone_name" in metafunc.fixturenames
    wants_gate = "driftloop_gate" in metafunc.fixturenames
    if not (wants_phone or wants_gate):
        return
    missing = _missing(metafunc.config)
    if wants_phone:
        names = [] if missing else _phone_names(metafunc.config)
        reason = missing or "no phone is attached: connect one, or give --driftloop-phone virtual"
        # Grouped by phone: a session-wide gate would make pytest jump between phones.
        params = _params(names, reason, "no-phone")
        metafunc.parametrize("driftloop_phone_name", params, indirect=True, scope="session")
    if wants_gate:
        gates = [] if missing else _gate_names(metafunc.config)
        params = _params(gates, missing or "", "no-gate")
        metafunc.parametrize("driftloop_gate", params, scope="function")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name the reports."""
    for path in terminalreporter.config.stash[_REPORTS]:
        terminalreporter.write_line(f"driftloop: {path}")


@pytest.fixture(scope="session")
def driftloop_phone_name(request: pytest.FixtureRequest) -> str:
    """A serial, or `virtual`."""
    name: str = request.param
    return name


@pytest.fixture(scope="session")
def bundle(pytestconfig: pytest.Config) -> Bundle:
    """The bundle of `--driftloop-bundle`, loaded; skips without one."""
    from driftloop.harness import bundle as bundles

    if (folder := pytestconfig.getoption("driftloop_bundle")) is None:
        pytest.skip(NO_BUNDLE)
    return _one_line(lambda: bundles.load(Path(folder)))


@pytest.fixture(scope="session")
def phone(driftloop_phone_name: str) -> Iterator[Phone]:
    """One phone after another; a virtual one that was started here is stopped at the end."""
    from driftloop.devices import adb, virtual

    if driftloop_phone_name != "virtual":
        yield _one_line(lambda: adb.find(driftloop_phone_name))
        return
    with ExitStack() as stack:
        there = _one_line(lambda: stack.enter_context(virtual.at_hand()))
        yield _one_line(lambda: adb.find(there[0].serial))


@pytest.fixture(scope="session")
def evaluation(
    pytestconfig: pytest.Config,
    tmp_path_factory: pytest.TempPathFactory,
    bundle: Bundle,
    phone: Phone,
) -> Evaluation:
    """The whole ladder down to `phone`, run and judged once per phone, with its reports written.

    From the second phone on, this host's references come from the cache.
    """
    from driftloop import reports
    from driftloop.harness.progress import Unseen
    from driftloop.harness.releases.store import Store, store_path
    from driftloop.harness.running.request import RunRequest
    from driftloop.harness.running.run import evaluate
    from driftloop.reports import summary

    option = pytestconfig.getoption
    images, out = option("driftloop_images"), option("driftloop_out")
    if images is None:
        pytest.fail(NO_IMAGES, pytrace=False)
    name = "".join(letter if letter.isalnum() else "-" for letter in phone.serial)
    request = RunRequest(
        bundle=bundle.path,
        images=images,
        out=Path(out) / name if out else tmp_path_factory.mktemp(f"driftloop-{name}-"),
        phones=(phone.serial,),
        contract=option("driftloop_contract"),
        training=option("driftloop_training"),
        quant=option("driftloop_quant"),
        gates=option("driftloop_gates"),
    )
    judged = _one_line(lambda: evaluate(request, Unseen()))
    shown = summary.of(judged, Store(store_path()))
    written = _one_line(lambda: reports.build(shown))
    pytestconfig.stash[_REPORTS].append(written[0])
    return judged


def _one_line(act: Callable[[], _T]) -> _T:
    """Shows a known error as one line of pytest's output instead of a traceback."""
    from driftloop.devices.errors import DeviceError
    from driftloop.harness.errors import DriftloopError

    try:
        return act()
    except (DriftloopError, DeviceError) as error:
        pytest.fail(str(error), pytrace=False)


def _missing(config: pytest.Config) -> str | None:
    """Why nothing can be judged. A bundle without images is a mistake and ends the session."""
    if config.getoption("driftloop_bundle") is None:
        return NO_BUNDLE
    if config.getoption("driftloop_images") is None:
        raise pytest.UsageError(NO_IMAGES)
    return None


def _phone_names(config: pytest.Config) -> list[str]:
    from driftloop.devices import adb
    from driftloop.devices.errors import DeviceError

    names: list[str] = []
    for asked in config.getoption("driftloop_phone") or ["all"]:
        if asked != "all":
            names.append(asked)
            continue
        try:
            names += [phone.serial for phone in adb.attached()]
        except DeviceError as error:
            raise pytest.UsageError(str(error)) from error
    return list(dict.fromkeys(names))


def _gate_names(config: pytest.Config) -> list[str]:
    """What is tested on every phone: delivery first, then every gate. Refuses a bad gates file."""
    from driftloop.harness import gates_file
    from driftloop.harness.errors import GatesError
    from driftloop.harness.judgement.gate import GATE_NAMES

    try:
        gates_file.load(config.getoption("driftloop_gates"))
    except GatesError as error:
        raise pytest.UsageError(str(error)) from error
    return [DELIVERY, *GATE_NAMES]


def _params(values: list[str], reason: str, empty_id: str) -> list[Any]:
    """One for each value; without any, one that is skipped for that reason."""
    skip = pytest.mark.skip(reason=reason)
    return [pytest.param(value, id=value) for value in values] or [
        pytest.param("", marks=skip, id=empty_id)
    ]
