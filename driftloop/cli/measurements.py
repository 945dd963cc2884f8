"""`driftloop latency`, `tokens`, `calibrate` and `remedy`: what is measured beside a run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from driftloop.cli.console import progress_board, say, show, table
from driftloop.cli.options import (
    BundleArgument,
    BundleContractOption,
    GatesOption,
    ImagesArgument,
    JsonFlag,
    PhonesOption,
    QuantOption,
    ResumableOption,
    RunArgument,
    new_run_folder,
)

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from driftloop.harness.calibration import Calibration
    from driftloop.harness.remedy import Remedies, Remedy
    from driftloop.harness.tokens import Budget, TokenReport
    from driftloop.harness.trials.record import TrialRecord

_GUIDE: Final = {"image_tokens": 1, "text_tokens": 20, "prompt_tokens": 21, "answer_tokens": 11}
"""What the app's guide estimates (app_flow.md, "Token Budget Analysis")."""
_TOKEN_ROWS: Final = {
    "tiles": "",
    "image": "1",
    "framing around tiles": "",
    "text of the prompt": "~20",
    "prompt": "~21",
    "left for the answer": "~11",
    "context used": "",
    "it fits": "",
    "transformers agrees": "",
    "encode, ms": "",
    "prefill, ms": "",
}
"""Each row of the token budget, with the guide's estimate."""


def latency(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="The candidate's folder.")],
    images: ImagesArgument,
    phone: Annotated[str, typer.Option(help="A serial, or virtual.")],
    baseline_bundle: Annotated[
        Path | None,
        typer.Option(
            metavar="BUNDLE", help="The baseline's bundle; by default the candidate itself."
        ),
    ] = None,
    runner: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The candidate's runner; by default one is built."),
    ] = None,
    baseline_runner: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The baseline's runner; by default one is built."),
    ] = None,
    contract: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE", help="The candidate's contract; by default its bundle's own."
        ),
    ] = None,
    baseline_contract: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE", help="The baseline's contract; by default its bundle's own."
        ),
    ] = None,
    quant: QuantOption = "q8_0",
    images_per_run: Annotated[
        int, typer.Option(help="Images per process, the first of which warms it up.")
    ] = 7,
    gates: GatesOption = None,
    out: ResumableOption = None,
    seed: Annotated[int, typer.Option(help="Decides which images, in which order.")] = 0,
    as_json: JsonFlag = False,
) -> None:
    """Is the candidate slower than the baseline on this phone?

    Runs of the baseline measure the phone's noise, which decides how many runs each side then
    takes, in turn. Of the gates file, the table latency.trial counts.

    Exit code: 0 PASS, 1 FAIL, 2 bad input, 3 INCONCLUSIVE, 4 INFRA.
    """
    from driftloop.harness import gates_file
    from driftloop.harness.judgement.verdict import EXIT_CODES
    from driftloop.harness.trials.trial import TEXT_FILE, Entry, TrialRequest, run_trial

    request = TrialRequest(
        phone=phone,
        baseline=Entry(baseline_bundle or bundle, baseline_contract, baseline_runner),
        candidate=Entry(bundle, contract, runner),
        images=images,
        out=out or new_run_folder("latency-"),
        images_per_run=images_per_run,
        quant=quant,
        seed=seed,
        rule=gates_file.load(gates).latency.trial,
    )
    with progress_board() as board:
        ended = run_trial(request, board, say)
    show(as_json, lambda: ended.outcome.model_dump(mode="json"), lambda: _trial_view(ended.record))
    say(str(request.out / TEXT_FILE))
    raise typer.Exit(EXIT_CODES[ended.outcome.verdict])


def _trial_view(trial: TrialRecord) -> list[RenderableType]:
    """What was compared, what it took, and the verdict last."""
    from rich.text import Text

    from driftloop.harness.trials.outcome import facts, rule

    views: list[RenderableType] = [table(("", ""), facts(trial)), ""]
    views += [Text(rule(trial)), ""]
    if (outcome := trial.outcome) is not None:
        views.append(Text.assemble((outcome.verdict, "bold"), f": {outcome.sentence}"))
    return views


def tokens(
    bundle: BundleArgument,
    image: Annotated[
        Path | None, typer.Option(help="The image; by default a generated texture.")
    ] = None,
    quant: Annotated[str, typer.Option(help="The weight type that is timed.")] = "q8_0",
    contract: BundleContractOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Count a prompt's tokens by tiling, and time them.

    Image, framing and text tokens; context use; encode and prefill on this machine.

    Exit code: 0 where llama.cpp and transformers give the same ids under the contract, else 1.
    """
    from driftloop.harness import bundle as bundles
    from driftloop.harness import contract as contracts
    from driftloop.harness.tokens import measure

    loaded = bundles.load(bundle)
    chosen = contracts.load(contract) if contract else loaded.contract
    with progress_board() as board, _picture(image) as picture:
        report = measure(loaded, chosen, quant, picture, board)
    show(as_json, lambda: _token_document(report), lambda: _token_view(report))
    raise typer.Exit(0 if report.equal else 1)


@contextmanager
def _picture(image: Path | None) -> Iterator[Path]:
    if image is not None:
        yield image
        return
    import tempfile

    from driftloop.fixtures import textures

    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "texture.png"
        next(textures.textures(1, seed=1)).image.save(path)
        yield path


def _token_document(report: TokenReport) -> dict[str, Any]:
    from dataclasses import asdict

    contract = report.contract
    return {
        "equal": report.equal,
        "tiling": contract.tiling,
        "context": contract.runtime.context,
        "max_tokens": contract.limits.max_tokens,
        "label_tokens": report.label_tokens,
        "document": _GUIDE,
        "budgets": [
            asdict(budget)
            | {
                "prompt_tokens": budget.prompt_tokens,
                "answer_tokens": report.answer_tokens(budget),
                "context_used": report.context_used(budget),
                "fits": report.fits(budget),
            }
            for budget in report.budgets
        ],
    }


def _token_view(report: TokenReport) -> list[RenderableType]:
    from rich.text import Text

    own, contract = report.own, report.contract
    tilings = [
        f">{budget.tiling}{' (contract)' if budget is own else ''}" for budget in report.budgets
    ]
    columns = (_token_cells(report, budget) for budget in report.budgets)
    rows = zip(_TOKEN_ROWS, _TOKEN_ROWS.values(), *columns, strict=True)
    labels = ", ".join(f"{label} {count}" for label, count in report.label_tokens.items())
    remarks = [f"tokens of the labels: {labels}"]
    if own.prompt_tokens > _GUIDE["prompt_tokens"]:
        remarks.append(
            f"The app's guide counts {_GUIDE['image_tokens']} token for the image and "
            f"~{_GUIDE['prompt_tokens']} for the prompt; it is {own.image_tokens} and "
            f"{own.prompt_tokens}."
        )
    limit = contract.limits.max_tokens
    if report.answer_tokens(own) == limit:
        remarks.append(f"The limit of {limit} counts new tokens: the prompt takes nothing from it.")
    remarks += [
        f"{budget.tiling}: at position {where.position} llama.cpp has {where.desktop}, "
        f"transformers {where.torch}"
        for budget in report.budgets
        if (where := budget.difference) is not None
    ]
    return [table(("tokens", ">guide", *tilings), rows), "", *map(Text, remarks)]


def _token_cells(report: TokenReport, budget: Budget) -> tuple[str, ...]:
    rows, columns = budget.grid
    return (
        f"{rows}x{columns} + overview" if rows else "overview",
        f"{rows * columns + 1} x {budget.tokens_per_tile} = {budget.image_tokens}",
        str(budget.framing_tokens),
        str(budget.text_tokens),
        str(budget.prompt_tokens),
        str(report.answer_tokens(budget)),
        f"{report.context_used(budget)} of {report.contract.runtime.context}",
        "yes" if report.fits(budget) else "no",
        "yes" if budget.difference is None else "no",
        f"{budget.encode_ms:.1f}",
        f"{budget.prefill_ms:.1f}",
    )


def calibrate(
    bundle: BundleArgument,
    images: ImagesArgument,
    phone: PhonesOption = None,
    quant: QuantOption = "q8_0",
    contract: BundleContractOption = None,
    factor: Annotated[
        float, typer.Option(help="Limits are this many times the largest value measured.")
    ] = 2.0,
    drive: Annotated[int, typer.Option(help="How many images are driven on every hop.")] = 6,
    seed: Annotated[int, typer.Option(help="Decides which images are driven.")] = 0,
    out: Annotated[Path, typer.Option(help="The gates file that is written.")] = Path("gates.toml"),
    as_json: JsonFlag = False,
) -> None:
    """Measure the errors of a clean bundle's driven layers and write their limits to a gates file.

    Pass the file to `driftloop run --gates`. The limits that come with driftloop hold for the
    weight types and caches that its gates file lists; measure others with this.
    """
    from dataclasses import asdict

    from driftloop.harness.atomic import write_text
    from driftloop.harness.calibration import CalibrationRequest
    from driftloop.harness.calibration import calibrate as measure

    request = CalibrationRequest(
        bundle=bundle,
        images=images,
        phones=tuple(phone or ()),
        quant=quant,
        contract=contract,
        factor=factor,
        drive=drive,
        seed=seed,
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    with progress_board() as board:
        found = measure(request, board)
    write_text(out, found.gates)
    document = {"rows": [asdict(row) for row in found.rows], "calibration": found.provenance}
    show(as_json, lambda: document, lambda: _calibration_view(found))
    say(str(out))


def _calibration_view(found: Calibration) -> list[RenderableType]:
    """Per row and part: what was measured, and the limits that follow."""
    rows = []
    for row in found.rows:
        key = row.key
        for part, seen in row.seen.items():
            limit = row.limits[part]
            numbers = (seen[0], limit[0], seen[1], limit[1])
            rows.append((key, part, *(f"{number:.2g}" for number in numbers)))
            key = ""
    images, factor = found.provenance["images"], found.provenance["factor"]
    return [
        table(("limit", "part", ">error", ">limit", ">gain", ">limit"), rows),
        "",
        f"{images} images driven; each limit is {factor:g} times the largest value measured.",
    ]


def remedy(run: RunArgument, as_json: JsonFlag = False) -> None:
    """Measure what would make a release's answers depend less on luck.

    The images that are nearest to another label are run again on this host: with each dearer type
    of KV cache, with the vision tower in f16, and with the parts of the text model in f16 whose
    driven errors are largest.
    """
    from dataclasses import asdict

    from driftloop.harness.remedy import remedies

    with progress_board() as board:
        found = remedies(run, board)
    show(as_json, lambda: asdict(found), lambda: remedy_view(found))


def remedy_view(found: Remedies) -> list[RenderableType]:
    """A table each for the cache and the weights, for a terminal of 80 columns."""
    views: list[RenderableType] = []
    for title, rows in (("KV cache", found.cache), ("weights", found.weights)):
        if rows:
            views.append(_remedies(title, rows))
            views.append(f"Of the {rows[0].cases} nearest to another label, of {found.cases}.")
    return views or ["Nothing to remedy: the run has no runtime or quantization hop here."]


def _remedies(title: str, remedies: Sequence[Remedy]) -> Table:
    rows = (
        (
            row.what,
            f"{row.mib:+.1f}",
            f"{row.coin_tosses} of {row.cases}",
            str(row.flips),
            f"{row.nats:.2g}",
        )
        for row in remedies
    )
    return table((title, ">MiB more", ">coin tosses", ">flips", ">nats"), rows)
