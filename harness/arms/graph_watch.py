"""What llama.cpp's graphs hold while they are computed, through the scheduler's callback.

The scheduler shows each node before it is computed (ask), where the answer True cuts the graph,
and, where it was cut, again afterwards. Plain evidence cuts nothing: it copies the vision graph's
input, which is there before the first node is computed. Only deep mode and driving cut; on a CPU
backend the next node reads what was written into a node's values.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
from llama_cpp import llama_cpp
from numpy.typing import NDArray

from driftloop.harness.arms.base import StageFailed
from driftloop.harness.arms.passage import Passage
from driftloop.harness.errors import ArmUnavailable

Tensor = NDArray[np.float32]
LayerOf = Callable[[str], str | None]
"""From a node's name to the layer whose output it is; None for any other node."""

_INPUT: Final = b"inp_raw"
_F32: Final = 0


class _Node(ctypes.Structure):
    """`struct ggml_tensor`, ggml/include/ggml.h at the pinned commit, up to its name."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("buffer", ctypes.c_void_p),
        ("ne", ctypes.c_int64 * 4),
        ("nb", ctypes.c_size_t * 4),
        ("op", ctypes.c_int),
        ("op_params", ctypes.c_int32 * 16),
        ("flags", ctypes.c_int32),
        ("src", ctypes.c_void_p * 10),
        ("view_src", ctypes.c_void_p),
        ("view_offs", ctypes.c_size_t),
        ("data", ctypes.c_void_p),
        ("name", ctypes.c_char * 64),
    )


class GraphWatch:
    """The callback of one context, active inside `watching`. It must outlive the context."""

    def __init__(
        self, layer_of: LayerOf | None, last_alone: Callable[[str], bool] = lambda _layer: False
    ) -> None:
        """`layer_of`: nodes that a passage is shown; None shows none and cuts nothing.

        `last_alone`: layers of which only the prompt's last row counts.
        """
        self.callback: Any = llama_cpp.ggml_backend_sched_eval_callback(self._called)
        self._layer_of = layer_of
        self._last_alone = last_alone
        self._passage = Passage()
        self._watching = False
        self._failure: BaseException | None = None

    @contextmanager
    def watching(self, passage: Passage) -> Iterator[None]:
        """Layers computed in this block go by way of `passage`, whose exceptions are raised."""
        self._passage, self._watching = passage, True
        try:
            yield
        finally:
            self._passage, self._watching = Passage(), False
            # Kept by the callback, since nothing can be raised through llama.cpp.
            failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def _called(self, address: int, ask: bool, _data: int | None) -> bool:
        if not self._watching:
            return False
        try:
            node = _Node.from_address(address)
            return self._asked(node) if ask else self._computed(node)
        except BaseException as error:  # noqa: BLE001  (`watching` raises it)
            self._failure = error
            self._watching = False
            return False

    def _asked(self, node: _Node) -> bool:
        """Whether the node's values are wanted once they are computed."""
        return self._layer_of is not None and self._layer_of(_name(node)) is not None

    def _computed(self, node: _Node) -> bool:
        """Always True: the graph goes on."""
        layer = self._layer_of(_name(node)) if self._layer_of else None
        if layer is not None:
            # Without a copy: what is written into the rows is written into the node.
            rows = _values(node).reshape(-1, node.ne[0], copy=False)
            alone = self._last_alone(layer)
            rows = rows[-1:] if alone else rows
            # A graph without the prompt's last token has no row of the last layer's.
            if len(rows) > 0:
                instead = self._passage.layer(layer, rows, anew=alone)
                if instead is not None:
                    np.copyto(rows, instead)
        return True


class VisionWatch(GraphWatch):
    """Also sees the vision graph's input, the pixel values, and may replace them."""

    def __init__(self, layer_of: LayerOf | None) -> None:
        super().__init__(layer_of)
        self.pixel_values: Tensor = np.empty((3, 0, 0), np.float32)
        """The last tile's own, (3, height, width)."""
        self._place = 0
        self._seen = False

    @contextmanager
    def tile(self, place: int, passage: Passage) -> Iterator[None]:
        """The tile at `place` is encoded in this block, by way of `passage`.

        Raises StageFailed (`encode`) where the graph has no such input."""
        self._place, self._seen = place, False
        with self.watching(passage):
            yield
        if not self._seen:
            raise StageFailed("encode", "the vision graph has no input named inp_raw")

    def _asked(self, node: _Node) -> bool:
        if not self._seen:
            self._see_input(node)
        if self._seen and self._layer_of is None:
            self._watching = False
        return super()._asked(node)

    def _see_input(self, node: _Node) -> None:
        for address in node.src:
            source = _Node.from_address(address) if address else None
            if source is None or source.name != _INPUT:
                continue
            (values,) = _values(source)
            self.pixel_values = values.copy()
            instead = self._passage.tile(self._place, self.pixel_values)
            if instead is not None:
                np.copyto(values, instead)
            self._seen = True


def _name(node: _Node) -> str:
    name: bytes = node.name
    return name.decode(errors="replace")


def _values(node: _Node) -> Tensor:
    """A view of a tensor's values, in numpy's order: (ne[3], ne[2], ne[1], ne[0])."""
    if node.type != _F32:
        raise ArmUnavailable(
            f"llama.cpp does not keep {_name(node)} as float32; install the pinned llama-cpp-python"
        )
    shape, strides = tuple(node.ne)[::-1], tuple(node.nb)[::-1]
    if 0 in shape:
        return np.empty(shape, np.float32)
    reach = sum(stride * (size - 1) for size, stride in zip(shape, strides, strict=True)) + 4
    memory = (ctypes.c_uint8 * reach).from_address(node.data)
    return np.ndarray(shape, np.float32, memory, strides=strides)
