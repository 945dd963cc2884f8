"""`driftloop tokens`: the token budget as measured, beside the app guide's estimate."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from harness.cli.console import JsonFlag, answer, print_json, progress_board

if TYPE_CHECKING:
    from rich.console import Group

    from harness.tokens import Budget, TokenReport

DOCUMENT: Final = {"image_tokens": 1, "text_tokens": 20, "prompt_tokens": 21, "answer_tokens": 11}
"""What the app's document estimates (app_flow.md, "Token Budget Analysis")."""


def tokens(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="The bundle's folder.")],
    image: Annotated[
        Path | None, typer.Option(help="The picture to count and time; a texture if left out.")
    ] = None,
    quant: Annotated[str, typer.Option(help="The weight type that is timed.")] = "q8_0",
    contract: Annotated[
        str | None, typer.Option(help="A contract's name or file; the bundle's own if left out.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Count a prompt's tokens by tiling, and time them.

    Image, framing and text tokens; context use; encode and prefill on this machine.

    Exit code: 0 where llama.cpp and transformers give the same ids under the contract, else 1.
    """
    from harness import bundle as bundles
    from harness import contract as contracts
    from harness.tokens import measure

    loaded = bundles.load(bundle)
    chosen = contracts.load(contract) if contract else loaded.contract
    with progress_board() as board, _picture(image) as picture:
        report = measure(loaded, chosen, quant, picture, board)
    if as_json:
        print_json(_document(report))
    else:
        answer().print(_view(report))
    raise typer.Exit(0 if report.equal else 1)


@contextmanager
def _picture(image: Path | None) -> Iterator[Path]:
    if image is not None:
        yield image
        return
    import tempfile

    from fixtures import textures

    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "texture.png"
        next(textures.textures(1, seed=1)).image.save(path)
        yield path


def _document(report: TokenReport) -> dict[str, Any]:
    contract = report.contract
    return {
        "equal": report.equal,
        "tiling": contract.tiling,
        "context": contract.runtime.context,
        "max_tokens": contract.limits.max_tokens,
        "label_tokens": report.label_tokens,
        "document": DOCUMENT,
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


def _view(report: TokenReport) -> Group:
    from rich.console import Group
    from rich.markup import escape
    from rich.table import Table

    table = Table("tokens", box=None, pad_edge=False)
    table.add_column("document", justify="right")
    for budget in report.budgets:
        mark = " (contract)" if budget.tiling == report.contract.tiling else ""
        table.add_column(f"{budget.tiling}{mark}", justify="right")
    columns = (_cells(report, budget) for budget in report.budgets)
    for row in zip(_ROWS, _ESTIMATES, *columns, strict=True):
        table.add_row(*row)
    return Group(table, "", *map(escape, _remarks(report)))


_ROWS: Final = (
    "tiles",
    "image",
    "framing around tiles",
    "text of the prompt",
    "prompt",
    "left for the answer",
    "context used",
    "it fits",
    "transformers agrees",
    "encode, ms",
    "prefill, ms",
)
_ESTIMATES: Final = ("", "1", "", "~20", "~21", "~11", "", "", "", "", "")


def _cells(report: TokenReport, budget: Budget) -> tuple[str, ...]:
    rows, columns = budget.grid
    tiles = rows * columns + 1
    return (
        f"{rows}x{columns} + overview" if rows else "overview",
        f"{tiles} x {budget.tokens_per_tile} = {budget.image_tokens}",
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


def _remarks(report: TokenReport) -> Iterator[str]:
    labels = ", ".join(f"{label} {count}" for label, count in report.label_tokens.items())
    yield f"tokens of the labels: {labels}"
    own = report.own
    if own.prompt_tokens > DOCUMENT["prompt_tokens"]:
        yield (
            f"The app's guide counts {DOCUMENT['image_tokens']} token for the image and "
            f"~{DOCUMENT['prompt_tokens']} for the prompt; it is {own.image_tokens} and "
            f"{own.prompt_tokens}."
        )
    limit = report.contract.limits.max_tokens
    if report.answer_tokens(own) == limit:
        yield f"The limit of {limit} counts new tokens: the prompt takes nothing from it."
    for budget in report.budgets:
        if budget.difference is not None:
            where = budget.difference
            yield (
                f"{budget.tiling}: at position {where.position} llama.cpp has {where.desktop}, "
                f"transformers {where.torch}"
            )
