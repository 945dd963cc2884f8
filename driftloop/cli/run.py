"""`driftloop run` and `driftloop demo`: the ladder on a bundle and images, with a verdict."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from driftloop.cli.console import progress_board, say, show
from driftloop.cli.options import (
    BundleArgument,
    BundleContractOption,
    GatesOption,
    ImagesArgument,
    JsonFlag,
    PhonesOption,
    QuantOption,
    ResumableOption,
    SkipBadFlag,
    StoreOption,
    WaitOption,
    new_run_folder,
)

if TYPE_CHECKING:
    from driftloop.harness.judgement.verdict import Verdict
    from driftloop.harness.running.request import RunRequest


def run(
    bundle: BundleArgument,
    images: ImagesArgument,
    phone: PhonesOption = None,
    wait_s: WaitOption = 0,
    min_phones: Annotated[
        int,
        typer.Option(min=1, metavar="N", help="Run only with at least N phones of those named."),
    ] = 1,
    arms: Annotated[
        str | None,
        typer.Option(help="The arms in order, separated by commas; by default the whole ladder."),
    ] = None,
    contract: BundleContractOption = None,
    training: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            help="The training side's contract, for the arm torch:training; the one recorded "
            "beside the checkpoint by default.",
        ),
    ] = None,
    quant: QuantOption = "q8_0",
    out: ResumableOption = None,
    gates: GatesOption = None,
    seed: Annotated[int, typer.Option(help="Decides the order of the images.")] = 0,
    skip_bad: SkipBadFlag = False,
    fixed: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Run N images instead of as many as the sequential test needs."
        ),
    ] = None,
    drive: Annotated[
        int,
        typer.Option(
            metavar="N", help="Cases per hop in which every layer is judged alone; 0 for none."
        ),
    ] = 3,
    file_check: Annotated[
        bool,
        typer.Option(
            "--file-check/--no-file-check",
            help="Compare the bundle's files with its checkpoint.",
        ),
    ] = True,
    deep: Annotated[
        bool,
        typer.Option("--deep", help="Keep every tensor of every case."),
    ] = False,
    phone_contract: Annotated[
        str | None,
        typer.Option(metavar="NAME|FILE", help="A contract for the phones alone."),
    ] = None,
    phone_bundle: Annotated[
        Path | None, typer.Option(help="A bundle for the phones alone.")
    ] = None,
    phone_runner: Annotated[
        Path | None,
        typer.Option(help="A runner for the phones alone."),
    ] = None,
    app: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="What the app itself saw and answered, as the ladder's last arm."
        ),
    ] = None,
    app_pull: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="The same file, fetched from that path on the phone."),
    ] = None,
    store: StoreOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Run the ladder on images, compare, judge, report.

    Arms: the checkpoint, desktop llama.cpp, phones, the app. On a few cases of every hop each
    layer of an arm is given its reference's input, so that the verdict names the step, the layer
    and the file.

    Exit code: 0 PASS, 1 FAIL, 2 bad input, 3 INCONCLUSIVE, 4 INFRA.
    """
    from driftloop.harness.running.request import RunRequest

    request = RunRequest(
        bundle=bundle,
        images=images,
        out=out or new_run_folder(),
        phones=tuple(phone or ()),
        wait_s=wait_s,
        min_phones=min_phones,
        arms=tuple(arms.split(",")) if arms else (),
        contract=contract,
        training=training,
        quant=quant,
        seed=seed,
        skip_bad=skip_bad,
        gates=gates,
        fixed=fixed,
        drive=drive,
        check_files=file_check,
        deep=deep,
        phone_contract=phone_contract,
        phone_bundle=phone_bundle,
        phone_runner=phone_runner,
        app=app,
        app_pull=app_pull,
    )
    raise typer.Exit(_run_and_show(request, as_json, store).exit_code)


def demo(
    out: Annotated[Path, typer.Option(help="The folder for the runs.")] = Path("runs/demo"),
) -> None:
    """Run everything on the tiny bundle and a virtual phone.

    Prepares, trains, converts (cached), audits, runs the ladder, judges, reports.

    Where no virtual phone can run, an attached phone is used, or none.
    """
    import shutil

    from driftloop.cli.audit import audit_and_show
    from driftloop.fixtures import demo as recipe
    from driftloop.harness import bundle as bundles
    from driftloop.harness.audit.audit import Sources
    from driftloop.harness.running.request import RunRequest
    from driftloop.harness.running.run import evaluate

    shutil.rmtree(out, ignore_errors=True)
    bundle = recipe.bundle(say)
    checkpoint = str(bundles.load(bundle).checkpoint)
    sources = Sources(dataset=recipe.dataset(say), checkpoint=checkpoint, bundle=bundle)
    audited = audit_and_show(sources, as_json=False)
    images = str(recipe.images(out / "images"))
    with _demo_phones() as phones:
        verdict = _run_and_show(RunRequest(bundle, images, out / "default", phones), as_json=False)

    shipped = RunRequest(
        bundle,
        images,
        out / "as-shipped",
        arms=("torch:training", "torch"),
        contract="as-shipped",
        training="default",
        fixed=recipe.TEXTURES // 4,
    )
    say("the app as its source stands, compared with what the model was trained on:")
    with progress_board() as board:
        found = evaluate(shipped, board).verdict
    for blame in found.blames:
        say(f"{blame.hop}, {blame.stage}: {blame.sentence}")
    raise typer.Exit(verdict.exit_code or audited)


def _run_and_show(request: RunRequest, as_json: bool, store: Path | None = None) -> Verdict:
    """Evaluates with progress on stderr, writes the reports, prints the table and the verdict."""
    from driftloop import reports
    from driftloop.harness.releases.store import Store
    from driftloop.harness.running import run_plan
    from driftloop.harness.running.run import evaluate
    from driftloop.reports import summary, terminal

    if not request.arms:
        for kind in run_plan.missing_packages():
            say(f"arm {kind} is left out: pip install 'driftloop[{kind}]'")
    with progress_board() as board:
        evaluation = evaluate(request, board)
        writing = board.track("writing reports")
        writing(0, 1)
        run = summary.of(evaluation, Store(store))
        written = reports.build(run)
        writing(1, 1)
    show(
        as_json,
        lambda: evaluation.verdict.model_dump(mode="json"),
        lambda: terminal.summary_view(run),
    )
    for path in written:
        say(str(path))
    return evaluation.verdict


@contextmanager
def _demo_phones() -> Iterator[tuple[str, ...]]:
    """The serial of a virtual phone; where none can run, of an attached one, if there is any."""
    from driftloop.devices import adb, virtual

    reason = virtual.available()
    if reason is None:
        with virtual.started(progress=say) as phone:
            yield (phone.serial,)
        return
    usable = tuple(phone.address for phone in adb.attached() if phone.state == "device")[:1]
    say(f"no virtual phone can run here ({reason}); using {usable[0] if usable else 'no phone'}")
    yield usable
