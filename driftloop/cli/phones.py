"""`driftloop devices`, `phone`, `deploy` and `doctor`: phones, what is on them, and this host."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from driftloop.cli.console import progress_board, say, show, table
from driftloop.cli.options import BundleArgument, JsonFlag, QuantOption

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from driftloop.devices.adb import AttachedPhone
    from driftloop.devices.virtual import VirtualPhone
    from driftloop.harness.arms.deployment import Deployment
    from driftloop.harness.diagnosis import Finding

app = typer.Typer(help="Virtual phones: a genuine adbd in a private /data.", no_args_is_help=True)

_MARKS = {"ok": ("✓", "green"), "absent": ("-", "yellow"), "broken": ("✗", "red")}
_MIB = 2**20


def doctor(as_json: JsonFlag = False) -> None:
    """List what is installed, built and reachable.

    Exit code: 0, or 4 where something every run needs is broken.
    """
    from driftloop.harness import diagnosis

    findings = diagnosis.examine()
    document = [asdict(finding) for finding in findings]
    show(as_json, lambda: document, lambda: table(("", "", ""), map(_finding_row, findings)))
    raise typer.Exit(4 if any(finding.state == "broken" for finding in findings) else 0)


def _finding_row(finding: Finding) -> tuple[Text, str, str]:
    from rich.text import Text

    remedy = f": {finding.remedy}" if finding.remedy else ""
    return Text(*_MARKS[finding.state]), finding.subject, f"{finding.detail}{remedy}"


def devices(as_json: JsonFlag = False) -> None:
    """Phones: ABI, Android, free space, temperature, state."""
    from driftloop.devices import adb

    phones = [_attached(phone) for phone in adb.attached()]
    if not (phones or as_json):
        say("no phone is attached; plug one in with USB debugging on, or: driftloop phone start")
        return
    titles = ("serial", "state", "model", "ABI", "Android", ">free", ">temp")
    show(as_json, lambda: phones, lambda: table(titles, map(_device_row, phones)))


def _attached(attached: AttachedPhone) -> dict[str, Any]:
    from driftloop.devices import adb, health
    from driftloop.devices.errors import DeviceError

    known: dict[str, Any] = {
        "serial": attached.address,
        "address": attached.address,
        "state": attached.state,
    }
    if attached.state != "device":
        return known
    try:
        phone = adb.find(attached.address)
        known["serial"] = phone.serial
        identity = phone.identity()
        return known | {
            "model": identity.model,
            "abi": identity.abi,
            "android_version": identity.android_version,
            "free_bytes": phone.free_bytes(),
            "temp_c": health.read(phone).temp_c,
        }
    except DeviceError as error:
        return known | {"state": f"faulty: {error}"}


def _device_row(phone: dict[str, Any]) -> tuple[str, ...]:
    serial, address = phone["serial"], phone["address"]
    names = (phone.get(key, "") for key in ("state", "model", "abi", "android_version"))
    free, temp_c = phone.get("free_bytes"), phone.get("temp_c")
    return (
        serial if serial == address else f"{serial}\nas {address}",
        *names,
        "" if free is None else f"{free / 2**30:.1f} GiB",
        "" if temp_c is None else f"{temp_c:.1f} °C",
    )


def deploy(
    bundle: BundleArgument,
    phone: Annotated[list[str], typer.Option(help="A serial, all, or virtual; may be repeated.")],
    quant: QuantOption = "q8_0",
    prune: Annotated[
        bool, typer.Option("--prune", help="First remove everything else that driftloop pushed.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Push a bundle and the fitting runner to phones, verified.

    No image is run.
    Later runs find the files there: what a phone has already is not sent again.
    """
    from concurrent.futures import ThreadPoolExecutor

    from driftloop.harness import bundle as bundles
    from driftloop.harness.arms.deployment import deploy_bundle
    from driftloop.harness.running import phones

    loaded = bundles.load(bundle)
    say(f"verifying {loaded.path}")
    for fault in bundles.verify(loaded, [quant]):
        if not fault.remark:
            raise bundles.refusal(loaded, fault)
    with progress_board() as board, phones.held(phone) as found:
        for missed in found.left_out:
            board.say(f"left out: {missed.detail}")
        with ThreadPoolExecutor(max_workers=len(found.phones)) as pool:
            started = [
                pool.submit(deploy_bundle, one, loaded, quant, board, prune=prune)
                for one in found.phones
            ]
        done = [deployment.result() for deployment in started]
    document = [asdict(one) | {"sent_bytes": one.sent_bytes} for one in done]
    show(as_json, lambda: document, lambda: [part for one in done for part in _deployed(one)])


def _deployed(deployment: Deployment) -> tuple[Table, str]:
    rows = [
        (
            file.name,
            f"{file.size_bytes / _MIB:.2f}",
            "sent" if file.sent else "already there",
            f"{PurePosixPath(file.remote).name[:16]}...",
        )
        for file in deployment.files
    ]
    sent, freed = deployment.sent_bytes / _MIB, deployment.freed_bytes / _MIB
    summary = f"{sent:.1f} MiB sent" if sent else "nothing sent, everything was already there"
    if freed:
        summary += f", {freed:.1f} MiB pruned"
    folder = PurePosixPath(deployment.files[0].remote).parent
    summary = f"{deployment.serial}, runner {deployment.variant}: {summary}; in {folder}"
    return table(("file", ">MiB", "", "on the phone as"), rows), summary


@app.command()
def start(
    abi: Annotated[
        Literal["arm64-v8a", "x86_64"],
        typer.Option(help="arm64-v8a runs the program that a real phone gets; x86_64 is faster."),
    ] = "arm64-v8a",
    count: Annotated[int, typer.Option(min=1, max=16, help="How many phones to start.")] = 1,
    cpu: Annotated[
        str | None,
        typer.Option(help="The CPU of an arm64-v8a phone: cortex-a53, cortex-a76 or cortex-a710."),
    ] = None,
    storage_mb: Annotated[
        int | None, typer.Option(min=1, help="Size of /data in MiB; by default unlimited.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Start virtual phones; prints their serials."""
    from driftloop.devices import adb, virtual

    started = [
        virtual.start(abi, cpu=cpu, storage_mb=storage_mb, progress=say) for _ in range(count)
    ]
    for phone in started:
        adb.find(phone.serial)
    _show_virtual(started, as_json)


@app.command("list")
def list_running(as_json: JsonFlag = False) -> None:
    """Virtual phones that are running."""
    from driftloop.devices import virtual

    _show_virtual(virtual.running(), as_json)


@app.command()
def stop(
    name: Annotated[str | None, typer.Argument(help="A name or serial; by default all.")] = None,
) -> None:
    """Stop one virtual phone, or all of them."""
    from driftloop.devices import virtual
    from driftloop.harness.errors import BadInput

    running = virtual.running()
    wanted = [phone for phone in running if name in (None, phone.name, phone.serial)]
    if name is not None and not wanted:
        known = ", ".join(phone.name for phone in running) or "none"
        raise BadInput(f"no virtual phone {name!r} is running; running: {known}")
    for phone in wanted:
        virtual.stop(phone.name)
        say(f"stopped {phone.name}")


def _show_virtual(phones: list[VirtualPhone], as_json: bool) -> None:
    if not (phones or as_json):
        say("no virtual phone is running; start one with: driftloop phone start")
        return
    fields = ("name", "abi", "serial", "port", "pid")
    document = [{field: getattr(phone, field) for field in fields} for phone in phones]
    lines = (f"{phone.serial}  {phone.abi}  {phone.name}" for phone in phones)
    show(as_json, lambda: document, lambda: "\n".join(lines))
