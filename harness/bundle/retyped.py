"""A bundle's files against those of another under the same quant type: are they stored alike?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from harness.bundle.faults import Half
from harness.bundle.gguf_file import GgufFile
from harness.bundle.manifest import Bundle
from harness.bundle.places import place_of
from harness.records.inquiry import FileFault, Owner


def retyped(
    bundle: Bundle, wanted: Bundle, quants: Iterable[str], owner: Owner
) -> Iterator[FileFault]:
    """Files of `bundle` that store tensors in other types than `wanted` does.

    One fault a file, named after the first such tensor: it computes otherwise, however near.

    Raises BundleError where a file is no GGUF.
    """
    for quant in quants:
        halves: tuple[tuple[Half, Path, Path], ...] = (
            ("text", bundle.text_model(quant), wanted.text_model(quant)),
            ("mmproj", bundle.mmproj(quant), wanted.mmproj(quant)),
        )
        for half, path, like in halves:
            found, asked = GgufFile(path), GgufFile(like)
            other = [
                name
                for name in found.tensors
                if name in asked.tensors and found.type_name(name) != asked.type_name(name)
            ]
            if other:
                stage, layer = place_of(other[0])
                yield FileFault(
                    owner=owner,
                    half=half,
                    quant=quant,
                    file=path.relative_to(bundle.path).as_posix(),
                    kind="tensor",
                    name=other[0],
                    stage=stage,
                    layer=layer,
                    detail=(
                        f"{found.type_name(other[0])}, {asked.type_name(other[0])} in the bundle "
                        f"of the other arms; {len(other)} of {len(found.tensors)} tensors are "
                        "of another type"
                    ),
                )
