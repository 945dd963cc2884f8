"""The pytest plugin: options, and the fixtures `phone`, `bundle` and `evaluation`.

pytest loads this module in every session of an environment with driftloop installed, so nothing
but pytest is imported until an option or a test asks for more. It fails closed: a test without
bundle, phone or verdict is an error, and never skipped.

Under pytest-xdist the controller finds the phones, once, and one worker gets all tests of a phone.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import astuple, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import pytest

if TYPE_CHECKING:
    from driftloop.devices.phone import Phone
    from driftloop.harness.bundle import Bundle
    from driftloop.harness.evaluation import Evaluation
    from driftloop.harness.progress import Progress
    from driftloop.harness.running.phones import Candidate

NO_BUNDLE: Final = "no bundle to judge: give --driftloop-bundle DIR and --driftloop-images IMAGES"
NO_IMAGES: Final = "--driftloop-bundle needs --driftloop-images: a folder, a glob, or a manifest"
OBSERVATIONS: Final = "observations"
"""Not a gate of the file but what all of them need: that every arm answered every case."""
BASELINE: Final = "baseline"
"""With `--driftloop-baseline`: no drift that the earlier release did not have."""
VERDICT: Final = "verdict"
"""Of the whole run: passes where `driftloop run` exits with 0."""

_PHONE: Final = "driftloop_phone"
"""A fixture; in the reports of a phone's tests, the property with its name."""
_HANDED_OVER: Final = "driftloop_phones"
_BY_PHONE: Final = ("load", "loadgroup")
"""Distributions of pytest-xdist, the first of which is its default, that can be by phone."""
_PHONES = pytest.StashKey[list["Candidate"]]()
_GATES = pytest.StashKey[list[str]]()
_PROPERTIES = pytest.StashKey[dict[str, list[tuple[str, str]]]]()
"""By phone, once it is evaluated: what the reports of its tests say of it."""


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
        ("baseline", "NAME", "a kept release; a drift that is new since then fails"),
    ):
        group.addoption(f"--driftloop-{name}", metavar=metavar, help=text)
    group.addoption("--driftloop-quant", metavar="TYPE", default="q8_0", help="default: q8_0")
    group.addoption(
        "--driftloop-phone",
        metavar="SERIAL|SET",
        action="append",
        help="a phone or a set of them, as driftloop run takes it (default: all); may be repeated",
    )
    group.addoption(
        "--driftloop-allow-inconclusive",
        action="store_true",
        help="skip, rather than fail, where there is too little evidence to decide",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register a marker for each gate where they are of use; refuse what would split a phone."""
    config.stash[_PROPERTIES] = {}
    if config.option.markers or config.option.driftloop_bundle:
        _gates(config)
    way = config.option.dist if getattr(config.option, "tx", None) else "no"
    if config.option.driftloop_bundle and way not in ("no", *_BY_PHONE):
        raise pytest.UsageError(
            f"--dist {way} may give one phone to several workers; use --dist load"
        )


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Refuse bad options and find the phones before any worker of pytest-xdist starts."""
    config = session.config
    if config.option.driftloop_bundle and not hasattr(config, "workerinput"):
        try:
            _refuse_bad_options(config)
        except Exception as error:
            raise pytest.UsageError(_line(error)) from error
        _phones(config)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:  # noqa: ANN401  (pytest-xdist may be missing)
    """Hand the phones over to a worker."""
    phones = node.config.stash.get(_PHONES, None)
    node.workerinput[_HANDED_OVER] = phones and [astuple(phone) for phone in phones]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object:  # noqa: ANN401
    """Give the tests of a phone to one worker."""
    phones = config.stash.get(_PHONES, None)
    if phones is None:
        return None
    from xdist.scheduler import LoadGroupScheduling  # type: ignore[import-untyped]

    # The longest first: `phone-1` is a part of `phone-1-b`.
    names = sorted((phone.name for phone in phones), key=len, reverse=True)

    class ByPhone(LoadGroupScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            _, _, params = nodeid.partition("[")
            of = (name for name in names if re.search(rf"(^|-){re.escape(name)}[-\]]", params))
            return next(of, None) or super()._split_scope(nodeid)

    return ByPhone(config, log)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test per phone and, where it asks for a gate, per gate: `test[PHONE-GATE]`."""
    config, names = metafunc.config, metafunc.fixturenames
    # Grouped by phone: a session-wide gate would make pytest jump between phones.
    if _PHONE in names:
        judged = not {"evaluation", "bundle"}.isdisjoint(names)
        phones = _no_bundle() if judged and not config.option.driftloop_bundle else _phones(config)
        params = [pytest.param(phone, id=phone.name) for phone in phones]
        metafunc.parametrize(_PHONE, params, indirect=True, scope="session")
    if "driftloop_gate" in names:
        params = [
            pytest.param(gate, id=gate, marks=getattr(pytest.mark, gate)) for gate in _gates(config)
        ]
        metafunc.parametrize("driftloop_gate", params, scope="function")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of a phone that cannot be used, one test of each function is left, which says why."""
    if config.option.collectonly:
        return
    kept: dict[object, pytest.Item] = {}
    for item in items:
        phone, key = _phone_of(item), cast("object", item)
        if isinstance(item, pytest.Function) and phone is not None and phone.refusal is not None:
            key = (item.parent, item.originalname, phone)
        kept[key] = item
    items[:] = kept.values()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    """Put the phone, and what its evaluation found, into the properties of its tests."""
    if call.when == "setup" and (phone := _phone_of(item)) is not None:
        found = item.config.stash[_PROPERTIES].get(phone.name, [])
        item.user_properties += [(_PHONE, phone.name), *found]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The verdict of every phone and where its report is, or why it has none."""
    phones: dict[str, dict[str, str]] = {}
    for report in (one for some in terminalreporter.stats.values() for one in some):
        properties = {name: str(value) for name, value in getattr(report, "user_properties", ())}
        if (name := properties.get(_PHONE)) is None:
            continue
        known = phones.setdefault(name, {})
        known.update(properties)
        if report.when == "setup" and report.failed:
            known.setdefault("error", report.longreprtext.splitlines()[-1])
    lines = []
    for name, known in phones.items():
        if "driftloop_verdict" in known:
            lines.append(f"{name}: {known['driftloop_verdict']}. {known['driftloop_headline']}")
            lines.append(f"  {known['driftloop_report']}")
        elif "error" in known:
            lines.append(f"{name}: no verdict: {known['error']}")
    if lines:
        terminalreporter.section("driftloop")
        terminalreporter.write_line("\n".join(lines))


@pytest.fixture(scope="session")
def driftloop_phone(request: pytest.FixtureRequest) -> Iterator[Candidate]:
    """One phone after another; a virtual one that is started here is stopped at the end."""
    phone: Candidate = request.param
    if phone.refusal is not None:
        pytest.fail(phone.refusal, pytrace=False)
    with ExitStack() as stack:
        if phone.serial is None:
            from driftloop.devices import virtual

            with _one_line():
                started = stack.enter_context(virtual.started())
            phone = replace(phone, serial=started.serial)
        yield phone


@pytest.fixture(scope="session")
def phone(driftloop_phone: Candidate) -> Phone:
    """The phone, as everything above ADB sees it."""
    from driftloop.devices import adb

    with _one_line():
        return adb.find(str(driftloop_phone.serial))


@pytest.fixture(scope="session")
def bundle(pytestconfig: pytest.Config) -> Bundle:
    """The bundle of `--driftloop-bundle`, loaded."""
    from driftloop.harness import bundle as bundles

    if (folder := pytestconfig.option.driftloop_bundle) is None:
        pytest.fail(NO_BUNDLE, pytrace=False)
    with _one_line():
        return bundles.load(Path(folder))


@pytest.fixture(scope="session")
def evaluation(
    pytestconfig: pytest.Config,
    tmp_path_factory: pytest.TempPathFactory,
    driftloop_phone: Candidate,
) -> Evaluation:
    """The whole ladder down to the phone, run and judged once per phone, with its reports written.

    From the second phone on, this host's references come from the cache.
    """
    from driftloop import reports
    from driftloop.harness.releases.store import Store
    from driftloop.harness.running.request import RunRequest
    from driftloop.harness.running.run import evaluate
    from driftloop.reports import summary

    option, serial = pytestconfig.option, str(driftloop_phone.serial)
    name = "".join(letter if letter.isalnum() else "-" for letter in serial)
    out = option.driftloop_out
    request = RunRequest(
        bundle=Path(option.driftloop_bundle),
        images=option.driftloop_images,
        out=Path(out) / name if out else tmp_path_factory.mktemp(f"driftloop-{name}-"),
        phones=(serial,),
        contract=option.driftloop_contract,
        training=option.driftloop_training,
        quant=option.driftloop_quant,
        gates=option.driftloop_gates,
    )
    with _one_line():
        with _progress(pytestconfig, driftloop_phone.name) as progress:
            judged = evaluate(request, progress)
        shown = summary.of(judged, Store())
        page, *_ = reports.build(shown)
    found = _properties(judged, shown.headline, page)
    pytestconfig.stash[_PROPERTIES][driftloop_phone.name] = found
    return judged


def _properties(run: Evaluation, headline: str, page: Path) -> list[tuple[str, str]]:
    """For the reports of a phone's tests, such as the XML of pytest's `--junitxml`."""
    (phone,) = run.record.phones
    found = {
        "serial": phone.serial,
        "model": f"{phone.manufacturer} {phone.model}".strip(),
        "android": phone.android_version,
        "build": phone.build,
        "verdict": run.verdict.verdict,
        "headline": headline,
        "report": str(page),
    }
    for hop in run.verdict.hops:
        spreads = [*hop.distances.items(), ("label_logprob", hop.label_logprob_difference)]
        found |= {
            f"{hop.name}_{what}": f"{spread.maximum:.3g}"
            for what, spread in spreads
            if spread is not None
        }
    return [(f"driftloop_{name}", value) for name, value in found.items()]


def _no_bundle() -> list[Candidate]:
    """In place of the phones."""
    from driftloop.harness.running.phones import Candidate

    return [Candidate("no-bundle", None, NO_BUNDLE)]


def _phones(config: pytest.Config) -> list[Candidate]:
    """Those of the options, found once per session; of a worker, those of its controller."""
    if _PHONES not in config.stash:
        from driftloop.harness.running.phones import Candidate, candidates

        handed_over = getattr(config, "workerinput", {}).get(_HANDED_OVER)
        asked = config.option.driftloop_phone or [os.environ.get("ANDROID_SERIAL") or "all"]
        try:
            config.stash[_PHONES] = (
                [Candidate(*one) for one in handed_over] if handed_over else candidates(asked)
            )
        except Exception as error:  # noqa: BLE001  (shown by every test that needs a phone)
            config.stash[_PHONES] = [Candidate("-".join(asked), None, _line(error))]
    return config.stash[_PHONES]


def _gates(config: pytest.Config) -> list[str]:
    """What is tested on every phone, each with a marker by which `-m` selects it."""
    if _GATES not in config.stash:
        from driftloop.harness.judgement.gate import GATE_NAMES

        since = [BASELINE] if config.option.driftloop_baseline else []
        config.stash[_GATES] = gates = [OBSERVATIONS, *GATE_NAMES, *since, VERDICT]
        for name in gates:
            line = f"{name}: what driftloop's acceptance suite tests under this name, of each phone"
            config.addinivalue_line("markers", line)
    return config.stash[_GATES]


def _phone_of(item: pytest.Item) -> Candidate | None:
    """The phone that a test is about."""
    callspec = getattr(item, "callspec", None)
    return None if callspec is None else callspec.params.get(_PHONE)


def _refuse_bad_options(config: pytest.Config) -> None:
    """What would otherwise fail every test of every phone. Raises BadInput."""
    from driftloop.harness import bundle, cases, contract, gates_file
    from driftloop.harness.errors import BadInput
    from driftloop.harness.releases.store import Store

    option = config.option
    if option.driftloop_images is None:
        raise BadInput(NO_IMAGES)
    gates_file.load(option.driftloop_gates)
    if option.driftloop_baseline is not None:
        Store().folder(option.driftloop_baseline)
    loaded, named = bundle.load(Path(option.driftloop_bundle)), option.driftloop_contract
    judged_by = contract.load(named) if named else loaded.contract
    cases.load_cases(option.driftloop_images, judged_by.answer.labels)


def _progress(config: pytest.Config, name: str) -> AbstractContextManager[Progress]:
    """Lines in the terminal that start with the phone's name."""
    from driftloop.harness.progress import Lines, Unseen

    terminal = config.pluginmanager.get_plugin("terminalreporter")
    capture = config.pluginmanager.get_plugin("capturemanager")
    if terminal is None or capture is None or config.option.verbose < 0:
        return nullcontext(Unseen())  # such as a worker, which has no terminal

    def write(line: str) -> None:
        with capture.global_and_fixture_disabled():
            terminal.write_line(f"{name}: {line}")

    return Lines(write)


@contextmanager
def _one_line() -> Iterator[None]:
    """Shows an error as one line of pytest's output instead of a traceback."""
    line = None
    try:
        yield
    except Exception as error:  # noqa: BLE001  (each is shown, and fails the test)
        line = _line(error)
    if line is not None:  # out of the block, so that pytest does not show what it comes from
        pytest.fail(line, pytrace=False)


def _line(error: Exception) -> str:
    """A known error says itself what is wrong; of any other the traceback goes into a file."""
    from driftloop.devices.errors import DeviceError
    from driftloop.harness import crash
    from driftloop.harness.errors import DriftloopError

    known = isinstance(error, DriftloopError | DeviceError)
    return str(error) if known else crash.kept(error)
