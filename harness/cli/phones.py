"""`driftloop devices` and `driftloop phone`: what is attached, and phones that are processes."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli.console import JsonFlag, answer, print_json, say

if TYPE_CHECKING:
    from devices.adb import AttachedPhone
    from devices.virtual import VirtualPhone

app = typer.Typer(help="Virtual phones: a genuine adbd in a private /data.", no_args_is_help=True)


class AbiChoice(StrEnum):
    """The ABIs a virtual phone can have."""

    ARM64_V8A = "arm64-v8a"
    X86_64 = "x86_64"


def devices(as_json: JsonFlag = False) -> None:
    """Phones: ABI, Android, free space, temperature, state."""
    from devices import adb

    rows = [_row(attached) for attached in adb.attached()]
    if as_json:
        print_json(rows)
        return
    if not rows:
        say("no phone is attached; plug one in with USB debugging on, or: driftloop phone start")
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for title in ("serial", "state", "model", "ABI", "Android", "free", "temp"):
        table.add_column(title, justify="right" if title in {"free", "temp"} else "left")
    for row in rows:
        free, temp_c = row.get("free_bytes"), row.get("temp_c")
        table.add_row(
            row["serial"],
            row["state"],
            row.get("model", ""),
            row.get("abi", ""),
            row.get("android_version", ""),
            f"{free / 2**30:.1f} GiB" if free is not None else "",
            f"{temp_c:.1f} °C" if temp_c is not None else "",
        )
    answer().print(table)


def _row(attached: AttachedPhone) -> dict[str, Any]:
    from devices import adb, health
    from devices.errors import DeviceError

    row: dict[str, Any] = {"serial": attached.serial, "state": attached.state}
    if attached.state != "device":
        return row
    try:
        phone = adb.find(attached.serial)
        identity = phone.identity()
        row |= {
            "model": identity.model,
            "abi": identity.abi,
            "android_version": identity.android_version,
            "free_bytes": phone.free_bytes(),
            "temp_c": health.read(phone).temp_c,
        }
    except DeviceError as error:
        row["state"] = f"faulty: {error}"
    return row


@app.command()
def start(
    abi: Annotated[
        AbiChoice, typer.Option(help="arm64-v8a runs what a real phone gets; x86_64 is fast.")
    ] = AbiChoice.ARM64_V8A,
    count: Annotated[int, typer.Option(min=1, max=16, help="How many phones.")] = 1,
    cpu: Annotated[
        str | None, typer.Option(help="For arm64-v8a: cortex-a53, cortex-a76 or cortex-a710.")
    ] = None,
    storage_mb: Annotated[
        int | None, typer.Option(min=1, help="Size of /data in MiB; unlimited if left out.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Start virtual phones; prints their serials."""
    from devices import adb, virtual

    started = [
        virtual.start(abi.value, cpu=cpu, storage_mb=storage_mb, progress=say) for _ in range(count)
    ]
    for phone in started:
        adb.find(phone.serial)
    _show(started, as_json)


@app.command("list")
def list_running(as_json: JsonFlag = False) -> None:
    """Virtual phones that are running."""
    from devices import virtual

    _show(virtual.running(), as_json)


@app.command()
def stop(
    name: Annotated[str | None, typer.Argument(help="Name or serial; all if left out.")] = None,
) -> None:
    """Stop one virtual phone, or all of them."""
    from devices import virtual
    from harness.errors import BadInput

    running = virtual.running()
    wanted = [phone for phone in running if name in (None, phone.name, phone.serial)]
    if name is not None and not wanted:
        known = ", ".join(phone.name for phone in running) or "none"
        raise BadInput(f"no virtual phone {name!r} is running; running: {known}")
    for phone in wanted:
        virtual.stop(phone.name)
        say(f"stopped {phone.name}")


def _show(phones: list[VirtualPhone], as_json: bool) -> None:
    if as_json:
        fields = ("name", "abi", "serial", "port", "pid")
        print_json([{field: getattr(phone, field) for field in fields} for phone in phones])
        return
    if not phones:
        say("no virtual phone is running; start one with: driftloop phone start")
    for phone in phones:
        answer().print(f"{phone.serial}  {phone.abi}  {phone.name}", soft_wrap=True)
