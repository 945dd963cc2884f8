"""`driftloop ci` and `driftloop cache`: what a CI server needs beside a run."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal

import typer

from driftloop.cli.console import say, show, table
from driftloop.cli.options import BundleArgument, ImagesArgument, JsonFlag

Forge = Literal["github", "gitlab", "jenkins"]

cache = typer.Typer(
    help="What driftloop keeps on this host: downloads, builds, answers.", no_args_is_help=True
)
_FILES: dict[Forge, tuple[str, str]] = {
    "github": ("github.yml", ".github/workflows/driftloop.yml"),
    "gitlab": ("gitlab.yml", ".gitlab-ci.yml"),
    "jenkins": ("Jenkinsfile", "Jenkinsfile"),
}
"""The template, and where the forge looks for what is made of it."""
_PLAIN = re.compile(r"[\w./@=*?,:+<>!\[\]-]+", re.ASCII)
"""What means the same to a shell, YAML and Groovy inside double quotes."""
_MIB = 2**20
_DAY_S = 86_400.0


def ci(
    forge: Annotated[Forge, typer.Argument(metavar="FORGE", help="github, gitlab or jenkins.")],
    bundle: BundleArgument,
    images: ImagesArgument,
    phone: Annotated[str, typer.Option(help="A serial or a set, as for driftloop run.")] = "all",
    min_phones: Annotated[int, typer.Option(min=1, help="Fewer phones fail the job.")] = 1,
    install: Annotated[
        str, typer.Option(help="What pip installs.")
    ] = "driftloop[desktop,torch,runner]",
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="By default where the forge looks for it.")
    ] = None,
) -> None:
    """Write a workflow for a CI server with phones.

    The workflow runs the ladder on the runner itself first, so that a broken bundle takes no phone.
    """
    from driftloop.harness.errors import BadInput

    values = {
        "bundle": str(bundle),
        "images": images,
        "phone": phone,
        "min_phones": str(min_phones),
        "install": install,
    }
    for name, value in values.items():
        if not _PLAIN.fullmatch(value):
            raise BadInput(
                f"{name} {value!r}: a workflow takes letters, digits and ./@=*?,:+<>![]- alone"
            )
    template, place = _FILES[forge]
    target = out or Path(place)
    if target.exists():
        raise BadInput(f"{target} exists; choose another --out, or remove it")
    text = (resources.files("driftloop.cli") / "workflows" / template).read_text("utf-8")
    for name, value in values.items():
        text = text.replace(f"[[ {name} ]]", value)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    except OSError as error:
        raise BadInput(f"{target}: {error.strerror}") from error
    say(f"wrote {target}; its runner needs the label or tag 'driftloop', and phones")


@cache.command()
def size(as_json: JsonFlag = False) -> None:
    """How much each part of the cache holds."""
    from driftloop.devices import paths

    rooms = {
        room.name: sum(paths.size_bytes(entry) for entry in room.iterdir())
        for room in paths.cache_rooms()
    }
    rows = [(name, f"{size / _MIB:.1f}") for name, size in rooms.items()]
    rows.append(("in all", f"{sum(rooms.values()) / _MIB:.1f}"))
    show(as_json, lambda: rooms, lambda: table(("part", ">MiB"), rows))


@cache.command()
def prune(
    unused_for_days: Annotated[
        float, typer.Option("--unused-for", min=1, metavar="DAYS", help="How long nothing read it.")
    ] = 30,
) -> None:
    """Remove what was not used for a while. All of it is made or fetched again when needed."""
    from driftloop.devices import paths

    count, freed = paths.prune_cache(unused_for_days * _DAY_S)
    say(f"removed {count} entries, {freed / _MIB:.1f} MiB")


@cache.command()
def key(
    bundle: Annotated[
        Path | None, typer.Argument(metavar="[BUNDLE]", help="A bundle's folder.")
    ] = None,
) -> None:
    """Print a name for the cache that changes when what it should hold does."""
    import hashlib
    import platform
    from importlib.metadata import version

    from driftloop.devices.runner.llama_cpp import LLAMA_COMMIT
    from driftloop.harness import bundle as bundles

    parts = [version("driftloop"), LLAMA_COMMIT, platform.machine(), platform.python_version()]
    if bundle is not None:
        parts.append(bundles.load(bundle).sha256)
    typer.echo(f"driftloop-{hashlib.sha256(' '.join(parts).encode()).hexdigest()[:16]}")
