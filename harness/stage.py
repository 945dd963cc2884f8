"""The steps of an answer, inside one arm."""

from __future__ import annotations

from typing import Literal, get_args

Stage = Literal["resize", "tile", "pixels", "embed", "tokens", "prefill", "decode", "label"]
STAGES: tuple[Stage, ...] = get_args(Stage)
"""In the order an answer passes them. `resize`: canonical pixels; `tile`: grid and image tokens;
`pixels`: values as the vision graph gets them; `embed`: image embeddings after the projector;
`tokens`: prompt ids; `prefill`: the first step's logits; `decode`: the generated ids and the text
they spell; `label`: how that is read."""

PICTURE: tuple[Stage, ...] = ("resize", "tile", "pixels", "embed")
"""The picture's branch, in its order."""
