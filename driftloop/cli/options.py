"""Arguments and options that several commands take."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

BundleArgument = Annotated[Path, typer.Argument(metavar="BUNDLE", help="The bundle's folder.")]
ImagesArgument = Annotated[
    str, typer.Argument(metavar="IMAGES", help="A folder, a glob, or a CSV/JSONL manifest.")
]
RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")]

CheckpointOption = Annotated[
    str, typer.Option(help="A local folder or a published Hugging Face id.")
]
ContractOption = Annotated[str, typer.Option(help="A contract's name or file.")]
BundleContractOption = Annotated[
    str | None, typer.Option(help="A contract's name or file; by default the bundle's own.")
]
GatesOption = Annotated[str | None, typer.Option(help="A gates file (TOML).")]
NewBundleOption = Annotated[Path, typer.Option(help="Where the bundle goes.")]
PhonesOption = Annotated[
    list[str] | None,
    typer.Option(
        envvar="ANDROID_SERIAL",
        help="A serial, all, virtual, or a set: model=Pixel*, abi=arm64-v8a, tag=mid, any:2, "
        "joined by commas. May be repeated. By default no phone takes part.",
    ),
]
WaitOption = Annotated[
    float,
    typer.Option(
        "--wait", min=0, metavar="SECONDS", help="How long to wait for phones that are in use."
    ),
]
StoreOption = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Where baselines are kept; by default $DRIFTLOOP_BASELINES or ./baselines.",
    ),
]
QuantOption = Annotated[str, typer.Option(help="The weight type that ships.")]
ResumableOption = Annotated[
    Path | None, typer.Option(help="The folder of results; a killed command resumes in it.")
]
SkipBadFlag = Annotated[
    bool, typer.Option("--skip-bad", help="Skip images that no phone could classify.")
]
JsonFlag = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]


def new_run_folder(prefix: str = "") -> Path:
    """A folder below `runs`, named after the time."""
    return Path("runs") / f"{prefix}{datetime.now(UTC):%Y%m%d-%H%M%S}"
