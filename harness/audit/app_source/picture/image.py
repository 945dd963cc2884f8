"""Size, padding, centring, resize and EXIF, as the code draws the bitmap it hands to the model."""

from __future__ import annotations

from collections.abc import Iterator

from harness.audit.app_source.language.tree import (
    Assign,
    Call,
    Member,
    Name,
    Node,
    text_of,
    walk,
)
from harness.audit.app_source.picture.bitmap_flow import Flow, Step
from harness.audit.app_source.picture.drawing import drawing_on, rectangle_of
from harness.audit.app_source.picture.placing import arithmetic, centring
from harness.audit.app_source.picture.square import padding, square_size
from harness.audit.app_source.program.graph import Program
from harness.audit.app_source.program.values import Known, Resolver, Unknown
from harness.audit.findings import Finding

_NATIVE_RESIZE = {
    "resize": "opencv's resize",
    "stbir_resize_uint8": "stb_image_resize",
    "stbir_resize_uint8_linear": "stb_image_resize",
    "stbir_resize_uint8_srgb": "stb_image_resize",
    "bilinear_resize": "its own bilinear",
    "bicubic_resize": "its own bicubic",
    "ARGBScale": "libyuv",
}
_SCALED = ("postScale", "setScale", "preScale", "setRectToRect")
_ENCODED = ("mtmd_helper_bitmap_init_from_buf", "mtmd_helper_bitmap_init_from_file")
_DECODED = "libmtmd decodes an image file here: what was done to it before is not in this source"
_NO_IMAGE = "no live code here hands a bitmap to native code that gives it to the model"


def read(program: Program, resolver: Resolver) -> Iterator[Finding]:
    """The findings about the pixels before they reach native code."""
    flow = Flow(program, resolver)
    if not flow.sinks:
        encoded = program.calls_of(_ENCODED, program.live)
        where, why = (encoded[0][0].at.where, _DECODED) if encoded else (".", _NO_IMAGE)
        for aspect in ("image_size", "padding", "resize", "size_arithmetic", "centring", "exif"):
            yield Finding(aspect, "app", None, where, why)
        return
    where = flow.sinks[0].node.at.where
    scales = [step for step in flow.of("scale", "matrix") if not _turns(step)]
    canvas = next(iter(flow.of("canvas")), None)
    drawn = drawing_on(canvas, program) if canvas is not None else None
    native = _native_resize(program)
    cut = _native_size(program, resolver)
    yield _resize(scales, drawn, native, flow, where)
    if not scales and drawn is None and native is None and cut is not None:
        yield Finding("image_size", "app", cut[0], cut[1], "the size native code makes it")
        why = "it is resized in native code, which could not be read"
        for aspect in ("padding", "size_arithmetic", "centring"):
            yield Finding(aspect, "app", None, cut[1], why)
    elif not scales and drawn is None:
        why = "the bitmap is not resized before it reaches the model"
        if native is not None:
            why = f"it is resized in native code, by {native.name} there"
        yield Finding("image_size", "app", None, where, why)
        yield Finding("padding", "app", "none" if native is None else None, where, why)
        yield Finding("size_arithmetic", "app", None, where, why)
        yield Finding("centring", "app", None, where, why)
    else:
        yield square_size(scales, canvas, flow, where)
        yield padding(scales, canvas, drawn, program)
        yield arithmetic(scales, drawn, where)
        yield centring(scales, canvas, drawn, program, where)
    yield _exif(flow, program, where)


# resize


def _resize(
    scales: list[Step], drawn: Step | None, native: Call | None, flow: Flow, where: str
) -> Finding:
    sampled = _subsampled(flow)
    if sampled is not None:
        note = "the decoder leaves out pixels (inSampleSize) before the resize"
        return Finding("resize", "app", "android after inSampleSize", sampled.at.where, note)
    if scales:
        step = scales[0]
        call = step.call
        if call.name == "extractThumbnail":
            return Finding("resize", "app", "ThumbnailUtils, cropped", call.at.where)
        if len({id(item.call) for item in scales}) > 1 and not _alternatives(scales):
            places = " and ".join(item.call.at.where for item in scales)
            return Finding("resize", "app", "android, twice", call.at.where, f"scaled in {places}")
        position = (
            6 if call.name == "createBitmap" else 3 if call.name == "createScaledBitmap" else 2
        )
        flag = call.argument(position, "filter")
        if flag is None:
            return Finding("resize", "app", "android", call.at.where, "filtered by default")
        found = step.resolver.one(flag, step.function)
        if isinstance(found, Known) and isinstance(found.value, bool):
            return Finding("resize", "app", "android" if found.value else "nearest", call.at.where)
        why = found.why if isinstance(found, Unknown) else f"the filter flag is {found.value!r}"
        return Finding("resize", "app", None, call.at.where, why)
    if drawn is not None and rectangle_of(drawn) is not None:
        return _by_paint(drawn, 3)
    if drawn is not None and _on_matrix(drawn.call.argument(1), drawn) & set(_SCALED):
        return _by_paint(drawn, 2)
    if native is not None:
        name = _NATIVE_RESIZE.get(native.name, native.name)
        return Finding("resize", "app", name, native.at.where)
    cut = _native_size(flow.program, flow.resolver)
    if cut is not None:
        return Finding("resize", "app", None, cut[1], "it is resized in native code, unread")
    return Finding("resize", "app", "none", where, "the bitmap goes to the model as it is")


def _by_paint(drawn: Step, position: int) -> Finding:
    """Drawn into a rectangle or through a matrix: filtered where its paint says so."""
    call = drawn.call
    paint = call.argument(position)
    told = [text_of(paint)] if paint is not None else []
    if isinstance(paint, Name):
        for origin in drawn.resolver.origins(paint, drawn.function):
            told += [text_of(item) for item in walk(origin.node) if isinstance(item, Name | Member)]
        for item in drawn.resolver.program.nodes(drawn.function):
            if isinstance(item, Assign) and text_of(item.target).endswith(
                ("isFilterBitmap", "filterBitmap")
            ):
                told.append("FILTER_BITMAP_FLAG" if text_of(item.value) == "True" else "")
            if isinstance(item, Call) and item.name == "setFilterBitmap":
                told.append("FILTER_BITMAP_FLAG")
    elif paint is not None:
        told += [text_of(item) for item in walk(paint) if isinstance(item, Name | Member)]
        told += [
            "FILTER_BITMAP_FLAG"
            for item in walk(paint)
            if isinstance(item, Assign) and "ilterBitmap" in text_of(item.target)
        ]
    if any("FILTER_BITMAP_FLAG" in item for item in told):
        note = "drawn with a filtering paint: the sampler of createScaledBitmap"
        return Finding("resize", "app", "android", call.at.where, note)
    why = "drawn to size, and whether its paint filters is not said"
    return Finding("resize", "app", None, call.at.where, why)


def _subsampled(flow: Flow) -> Node | None:
    for function in flow.functions:
        for item in flow.program.nodes(function):
            if isinstance(item, Assign) and text_of(item.target).endswith("inSampleSize"):
                resolver = Resolver(flow.program)
                if resolver.number(item.value, function) != 1:
                    return item
    return None


def _alternatives(scales: list[Step]) -> bool:
    """Whether the scalings stand side by side in one function, and not one after another."""
    return len({id(step.function) for step in scales}) == 1


def _native_resize(program: Program) -> Call | None:
    found = program.calls_of(_NATIVE_RESIZE, program.live & program.reaching)
    return next(
        (
            c
            for c, f in found
            if f.language == "native"
            and (
                c.name != "resize"
                or (c.target is None and len(c.args) >= 3)
                or text_of(c.target) == "cv"
            )
        ),
        None,
    )


# size and padding


# arithmetic and centring


# EXIF


def _turns(step: Step) -> bool:
    """Whether a matrix only turns the picture."""
    if step.kind != "matrix":
        return False
    call = step.call
    matrix = call.argument(5, "m")
    names = _on_matrix(matrix, step)
    return bool(names & {"postRotate", "setRotate", "preRotate"}) and not names & {
        "postScale",
        "setScale",
        "preScale",
    }


def _on_matrix(matrix: Node | None, step: Step) -> set[str]:
    program = step.resolver.program
    found: set[str] = set()
    if isinstance(matrix, Name):
        for item in program.nodes(step.function):
            if isinstance(item, Call) and text_of(item.target) == matrix.text:
                found.add(item.name)
        for origin in step.resolver.origins(matrix, step.function):
            found |= {item.name for item in walk(origin.node) if isinstance(item, Call)}
    elif matrix is not None:
        found |= {item.name for item in walk(matrix) if isinstance(item, Call)}
    return found


def _native_size(program: Program, resolver: Resolver) -> tuple[int, str] | None:
    """The side of the bitmap native code makes, where it is a number of its own."""
    for call, function in program.calls_of(["mtmd_bitmap_init"], program.live):
        side = resolver.number(call.argument(0), function)
        if isinstance(side, int):
            return side, call.at.where
    return None


def _exif(flow: Flow, program: Program, where: str) -> Finding:
    functions = list(flow.functions)
    called = [t for f in functions for t in program.called(f) if t.language == "jvm"]
    reads = program.calls_of(
        ["ExifInterface", "getAttributeInt", "rotationDegrees", "getRotationDegrees"],
        [*functions, *called],
    )
    turned = program.calls_of(
        ["postRotate", "setRotate", "preRotate", "rotate"], [*functions, *called]
    )
    if reads and turned:
        call = turned[0][0]
        return Finding("exif", "app", True, call.at.where, "the picture is turned as its EXIF says")
    decodes = flow.of("decode")
    for step in decodes:
        call = step.call
        owner = text_of(call.target)
        if call.name == "decodeBitmap" and "ImageDecoder" in owner:
            return Finding("exif", "app", True, call.at.where, "ImageDecoder turns by EXIF itself")
        if "Glide" in owner or "Picasso" in owner:
            return Finding(
                "exif", "app", True, call.at.where, "the image library turns by EXIF itself"
            )
        if call.name.startswith("decode") or call.name == "getBitmap":
            return Finding(
                "exif",
                "app",
                False,
                call.at.where,
                f"{call.name} ignores EXIF and nothing else reads it",
            )
    place = decodes[0].call.at.where if decodes else where
    return Finding("exif", "app", None, place, "where the bitmap is decoded could not be followed")
