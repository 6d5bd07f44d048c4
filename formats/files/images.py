"""Images of problems, ready to send: PNG, JPEG, WebP as they are, DICOM rendered.

The kind of a file is detected from its content, not its name. Only pixels are sent: metadata (EXIF,
text chunks, a DICOM header with its patient) is dropped, an EXIF rotation is applied, an image that
is too large is scaled down and gets a note. A file that cannot be read raises an error with its
path.

Paths come from datasets that other people wrote, so nothing outside the folder of images is opened,
and neither a device, a pipe nor a decompression bomb can stop a run.

DICOM rendering follows PS3.3 C.11 (modality LUT, then VOI LUT or window, then presentation); the
window arithmetic is that of C.11.2.1.2. Only the first of several windows is used, and a VOI LUT
takes precedence over a window. Without either, the smallest and largest values become black and
white.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import stat
import struct
import warnings
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from traces import InputError

MAX_PIXELS = 100_000_000
"""Larger images are refused before decoding: a few bytes can decompress to gigabytes."""
MAX_DICOM_VALUES = 50_000_000
"""Limit for one frame (rows x columns x samples), which takes several arrays of float64 to window.
Mammograms have up to 25 million."""


class ImageError(InputError):
    """An image of a problem cannot be read; `where` is its path."""


_GRAY = {"MONOCHROME1", "MONOCHROME2"}
_COLOR = {"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT"}


_DECODERS = "pip install 'stepgold[dicom]'"
_LONGEST_REASON = 160
_DEFLATED = b"1.2.840.10008.1.2.1.99"
_MAX_INFLATED = 512 * 1024 * 1024
_GROUP_LENGTH = b"\x02\x00\x00\x00UL\x04\x00"
"""The first element of a DICOM's file meta information, before its 4 bytes of value."""


def render_dicom(
    content: bytes, frame: int | None, *, where: str
) -> tuple[Any, tuple[str, ...], bool]:
    """Render one frame of a DICOM file.

    Args:
        content: the file's bytes.
        frame: 1-based; required if there are several.
        where: the path, for errors.

    Returns:
        The picture (`PIL.Image`, mode L or RGB), notes on what was done, and whether the pixels
        may identify the patient (BurnedInAnnotation is YES).

    Raises:
        ImageError: no pixels, unsupported photometric interpretation or compression, a damaged
            file, several frames and none named.
    """
    import pydicom
    from PIL import Image

    # Its decoders also log what they raise; without a handler that goes to standard error.
    logging.getLogger("pydicom").addHandler(logging.NullHandler())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # header oddities do not affect the pixels
            _refuse_inflation(content, where)
            dataset = pydicom.dcmread(io.BytesIO(content))
            _drop_empty(dataset)
            index = _frame_index(dataset, frame, where)
            pixels, notes = _eight_bit(dataset, index, where)
            burned_in = str(dataset.get("BurnedInAnnotation", "")).upper() == "YES"
            picture = Image.fromarray(pixels)
    except ImageError:
        raise
    except Exception as fault:  # pydicom and its decoders raise anything for a damaged file
        raise ImageError(f"The DICOM cannot be rendered: {_reason(fault)}", where=where) from fault
    if burned_in:
        notes = (*notes, "text is burned into the pixels")
    return picture, notes, burned_in


def _reason(fault: Exception) -> str:
    return " ".join(str(fault).split())[:_LONGEST_REASON] or type(fault).__name__


def _refuse_inflation(content: bytes, where: str) -> None:
    """Refuse a deflated DICOM that inflates to more than the limit; pydicom inflates it whole.

    Raises:
        ImageError: it does, or it does not say where the deflated part starts.
        zlib.error: the deflated part is damaged.
    """
    start = _DICOM_PREAMBLE + 4
    if _DEFLATED not in content[start : start + 64 * 1024]:
        return
    if content[start : start + len(_GROUP_LENGTH)] != _GROUP_LENGTH:
        raise ImageError("The deflated DICOM has no valid file header.", where=where)
    start += len(_GROUP_LENGTH) + 4
    start += struct.unpack("<L", content[start - 4 : start])[0]
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    rest, inflated = content[start:], 0
    while rest and not inflater.eof:
        inflated += len(inflater.decompress(rest, 1 << 20))
        rest = inflater.unconsumed_tail
        if inflated > _MAX_INFLATED:
            raise ImageError(f"The DICOM inflates to more than {_MAX_INFLATED} bytes.", where=where)


def _drop_empty(dataset: Any) -> None:
    """Remove the attributes that are there without a value, as anonymizers leave them."""
    for element in list(dataset):
        value = element.value
        if (
            value is None
            or (isinstance(value, str) and not value.strip())
            or (element.VR != "SQ" and element.is_empty)
            or (element.VR == "SQ" and not value)
        ):
            del dataset[element.tag]


def _frame_index(dataset: Any, frame: int | None, where: str) -> int:
    """0-based index of the frame to show."""
    if "PixelData" not in dataset:
        raise ImageError("The DICOM has no pixels.", where=where)
    frames = int(dataset.get("NumberOfFrames") or 1)
    _refuse_large(dataset.Rows, dataset.Columns, int(dataset.get("SamplesPerPixel", 1)), where)
    if frame is None and frames > 1:
        raise ImageError(
            f"The DICOM has {frames} frames.", where=where, remedy="name one: file.dcm#frame=1"
        )
    if frame is not None and frame > frames:
        raise ImageError(f"There is no frame {frame}: the DICOM has {frames}.", where=where)
    index = (frame or 1) - 1
    if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        from pydicom.encaps import get_frame

        size = _coded_size(get_frame(dataset.PixelData, index, number_of_frames=frames))
        if size is not None:
            _refuse_large(*size, 1, where)
    return index


def _refuse_large(rows: int, columns: int, samples: int, where: str) -> None:
    if rows * columns * samples > MAX_DICOM_VALUES:
        raise ImageError(
            f"The DICOM has {rows} x {columns} pixels with {samples} values each; the limit is"
            f" {MAX_DICOM_VALUES} values.",
            where=where,
        )


def _coded_size(frame: bytes) -> tuple[int, int] | None:
    """Rows and columns that a compressed frame itself states; None if it states none.

    A decoder allocates what the frame says, whatever the DICOM header says. JPEG and JPEG-LS state
    it in their SOF segment, JPEG 2000 in the SIZ segment that follows its first marker.
    """
    if frame[:4] == b"\xff\x4f\xff\x51":
        columns, rows = struct.unpack(">LL", frame[8:16])
        return rows, columns
    if frame[:2] != b"\xff\xd8":
        return None
    at = 2
    while at + 9 <= len(frame) and frame[at] == 0xFF:
        marker, length = frame[at + 1], int.from_bytes(frame[at + 2 : at + 4], "big")
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            rows, columns = struct.unpack(">HH", frame[at + 5 : at + 9])
            return rows, columns
        at += 1 if marker == 0xFF else 2 + length
    return None


def _eight_bit(dataset: Any, index: int, where: str) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    from pydicom.pixels.processing import apply_color_lut, apply_modality_lut

    photometric = str(dataset.PhotometricInterpretation)
    if photometric == "PALETTE COLOR":
        colored: NDArray[Any] = apply_color_lut(_pixels(dataset, index, where), dataset)
        shift = colored.dtype.itemsize * 8 - 8
        return (colored[..., :3] >> shift).astype(np.uint8), ("palette applied",)
    if photometric in _COLOR:
        color = _pixels(dataset, index, where)  # YBR becomes RGB here
        bits = int(dataset.BitsStored)
        return (color >> max(0, bits - 8)).astype(np.uint8), ()
    if photometric not in _GRAY:
        raise ImageError(
            f"The photometric interpretation {photometric} is not supported.", where=where
        )
    stored = _pixels(dataset, index, where)
    padding = _padding(stored, dataset)
    _complete_rescale(dataset)
    values = np.asarray(apply_modality_lut(stored, dataset), dtype=np.float64)
    shade, note = _window(values, dataset, ~padding)
    if photometric == "MONOCHROME1":
        shade = 1 - shade  # the smallest value is white
        note += ", inverted"
    if padding.any():
        shade[padding] = 0
        note += ", padding black"
    return np.rint(shade * 255).astype(np.uint8), (note,)


def _pixels(dataset: Any, index: int, where: str) -> NDArray[Any]:
    """The stored values of a frame.

    Raises:
        ImageError: the decoder for its compression is not installed; `remedy` installs it.
    """
    from pydicom.pixels.utils import pixel_array

    syntax = dataset.file_meta.TransferSyntaxUID
    try:
        return np.asarray(pixel_array(dataset, index=index))
    except (RuntimeError, NotImplementedError, ValueError, OSError) as fault:
        if not syntax.is_compressed or find_spec("libjpeg") is not None:
            raise
        raise ImageError(
            f"The DICOM is compressed as '{syntax.name}', which takes decoders that are not"
            f" installed: {_DECODERS}",
            where=where,
            remedy=_DECODERS,
        ) from fault


def _padding(stored: NDArray[Any], dataset: Any) -> NDArray[np.bool_]:
    """Which stored values only fill the frame (PS3.3 C.7.5.1.1.2)."""
    if "PixelPaddingValue" not in dataset:
        return np.zeros(stored.shape, dtype=np.bool_)
    bits = int(dataset.BitsAllocated)
    ends = [int(dataset.PixelPaddingValue)]
    ends.append(int(dataset.get("PixelPaddingRangeLimit", ends[0])))
    if stored.dtype.kind == "i":  # some files write the bits of a negative value
        ends = [end - (1 << bits) if end >= 1 << (bits - 1) else end for end in ends]
    else:
        ends = [end + (1 << bits) if end < 0 else end for end in ends]
    return np.asarray((stored >= min(ends)) & (stored <= max(ends)))


def _complete_rescale(dataset: Any) -> None:
    """Without its other half a slope has the intercept 0, an intercept the slope 1."""
    if "RescaleSlope" in dataset and float(dataset.RescaleSlope) == 0:
        del dataset.RescaleSlope  # it would make all values one
    if ("RescaleSlope" in dataset) != ("RescaleIntercept" in dataset):
        dataset.RescaleSlope = dataset.get("RescaleSlope", 1)
        dataset.RescaleIntercept = dataset.get("RescaleIntercept", 0)


def _window(
    values: NDArray[np.float64], dataset: Any, shown: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], str]:
    """Values in [0, 1] and what was applied; only `shown` values count for the extremes."""
    table = dataset.VOILUTSequence[0] if "VOILUTSequence" in dataset else None
    if table is not None and table.get("LUTData") and table.get("LUTDescriptor"):
        from pydicom.pixels.processing import apply_voi

        looked_up = np.asarray(apply_voi(values.astype(np.int64), dataset), dtype=np.float64)
        highest = 2 ** int(table.LUTDescriptor[2]) - 1
        return np.clip(looked_up / highest, 0, 1), "VOI LUT applied"
    function = str(dataset.get("VOILUTFunction", "LINEAR")).strip().upper()
    narrowest = 1 if function == "LINEAR" else np.nextafter(0, 1)
    for center, width in zip(
        _numbers(dataset.get("WindowCenter")), _numbers(dataset.get("WindowWidth")), strict=False
    ):
        if center is not None and width is not None and width >= narrowest:
            note = f"window {center:g}/{width:g} applied"
            return _through(values, center, width, function), note
    there = values[shown] if shown.any() else values
    lowest, highest_value = float(there.min()), float(there.max())
    if highest_value <= lowest:
        return np.zeros_like(values), f"values {lowest:g} to {highest_value:g} become black"
    span = np.clip((values - lowest) / (highest_value - lowest), 0, 1)
    return span, f"values {lowest:g} to {highest_value:g} become black to white"


def _through(
    values: NDArray[np.float64], center: float, width: float, function: str
) -> NDArray[np.float64]:
    """The window functions of PS3.3 C.11.2.1.2 and C.11.2.1.3, onto [0, 1]."""
    if function == "SIGMOID":
        return 1 / (1 + np.exp(-4 * (values - center) / width))
    if function == "LINEAR_EXACT":
        return np.clip((values - center) / width + 0.5, 0, 1)
    if function != "LINEAR":
        raise ValueError(f"the VOI LUT function {function} is not supported")
    if width == 1:
        return (values > center - 0.5).astype(np.float64)
    return np.clip((values - (center - 0.5)) / (width - 1) + 0.5, 0, 1)


def _numbers(value: Any) -> list[float | None]:
    """The numbers of an attribute that may have several values; None for one that is empty."""
    several = isinstance(value, list | tuple) or type(value).__name__ == "MultiValue"
    values = list(value) if several else [value]
    return [None if each is None or str(each).strip() == "" else float(each) for each in values]


MAX_SIDE = 3072
"""Longest side in pixels; larger images are scaled down (Lanczos), as model services would do."""
MAX_FILE_BYTES = 50 * 1024 * 1024
"""Larger files are not read."""
_PLAIN_OPEN = (
    os.O_RDONLY
    | getattr(os, "O_BINARY", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_NONBLOCK", 0)
)
"""Does not follow a link that appeared since the path was checked, nor wait for a pipe's writer."""
_MAX_DIGITS = 9
_MIME = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp"}
_ENCODING: dict[str, dict[str, Any]] = {
    "PNG": {},
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"lossless": True},
}
_DICOM_PREAMBLE = 128
_MODES = dict.fromkeys(("1", "I", "I;16", "F"), "L") | dict.fromkeys(
    ("CMYK", "LAB", "HSV", "YCbCr"), "RGB"
)


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """An image as it is sent. Equality is that of hashes; the bytes are not compared or shown."""

    mime: str
    """`image/png`, `image/jpeg` or `image/webp`."""
    sha256: str
    """Hash of `data`, in hexadecimal; request keys and stored requests contain it."""
    width: int
    height: int
    path: str = field(compare=False)
    """The path as the problem names it."""
    data: bytes = field(repr=False, compare=False)
    notes: tuple[str, ...] = field(default=(), compare=False)
    """What was done to it: turned, scaled, window applied."""
    may_show_patient: bool = field(default=False, compare=False)
    """Whether the DICOM header says that text, maybe the patient's name, is burned in."""


def load_images(paths: Sequence[str], root: Path) -> tuple[EncodedImage, ...]:
    """Load a problem's images, all of which must be in the folder `root`.

    Raises:
        ImageError: one cannot be read; its path is in `where`.
    """
    return tuple(load_image(path, root) for path in paths)


def load_image(path: str, root: Path) -> EncodedImage:
    """Load one image. `file.dcm#frame=N` selects a frame (1-based) of a DICOM with several.

    Args:
        path: relative to `root`, or absolute; it must be in `root` once links are followed.
        root: the folder of images.

    Raises:
        ImageError: missing, outside `root`, not a regular file, too large, unsupported, damaged,
            or a DICOM that cannot be rendered.
    """
    name, frame = _frame(path)
    content = _read(path, name, root)
    if content[_DICOM_PREAMBLE : _DICOM_PREAMBLE + 4] == b"DICM":
        image, notes, may_show_patient = render_dicom(content, frame, where=path)
        return _encoded(path, image, kind="PNG", notes=notes, may_show_patient=may_show_patient)
    if frame is not None:
        raise ImageError("Only a DICOM has frames to name.", where=path)
    return _picture(path, content)


def _frame(path: str) -> tuple[str, int | None]:
    name, mark, number = path.rpartition("#frame=")
    if not mark:
        return path, None
    readable = number.isascii() and number.isdigit() and len(number) <= _MAX_DIGITS
    if not readable or int(number) < 1:
        raise ImageError(
            f"'{number[:20]}' is not a frame number.", where=path, remedy="count from 1"
        )
    return name, int(number)


def _read(path: str, name: str, root: Path) -> bytes:
    """The content of a regular file in `root`, at most `MAX_FILE_BYTES`."""
    try:
        folder = root.resolve()
        file = (folder / name).resolve()
        if not file.is_relative_to(folder):
            raise ImageError(
                "The image is outside the folder of images.",
                where=path,
                remedy="copy it there, or name with --images the folder that has all images",
            )
        descriptor = os.open(file, _PLAIN_OPEN)
        with open(descriptor, "rb") as stream:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise ImageError("The image is not a regular file.", where=path)
            content = b"" if status.st_size > MAX_FILE_BYTES else stream.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError, RuntimeError) as fault:  # also NUL in a name, a loop of links
        reason = fault.strerror if isinstance(fault, OSError) and fault.strerror else fault
        raise ImageError(
            f"The image cannot be opened: {reason}.",
            where=path,
            remedy="set the folder of relative paths with --images DIR",
        ) from fault
    size = max(status.st_size, len(content))
    if size > MAX_FILE_BYTES:
        raise ImageError(
            f"The image file has {size} bytes; the limit is {MAX_FILE_BYTES}.", where=path
        )
    if not content:
        raise ImageError("The image file is empty.", where=path)
    return content


def _picture(path: str, content: bytes) -> EncodedImage:
    """A PNG, JPEG or WebP; unchanged if there is nothing to drop, rotate or scale."""
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # MAX_PIXELS is checked; oddities do no harm
            return _checked_picture(path, content)
    except ImageError:
        raise
    except UnidentifiedImageError as fault:
        raise ImageError(
            "The file is not a supported image.", where=path, remedy="give PNG, JPEG, WebP or DICOM"
        ) from fault
    except Image.DecompressionBombError as fault:
        raise ImageError(
            f"The image is too large when decompressed: {fault}", where=path
        ) from fault
    except Exception as fault:  # Pillow raises anything for a damaged file
        raise ImageError(f"The image is damaged: {_reason(fault)}.", where=path) from fault


def _checked_picture(path: str, content: bytes) -> EncodedImage:
    from PIL import Image, ImageOps

    if content.startswith((b"GIF87a", b"GIF89a")):
        raise ImageError("The image is a GIF.", where=path, remedy="give PNG, JPEG, WebP or DICOM")
    # Pillow's other readers (fonts, PostScript, text headers) are never run.
    image: Any = Image.open(io.BytesIO(content), formats=tuple(_MIME))
    kind = image.format
    if kind not in _MIME:
        raise ImageError(
            f"The image is a {kind}.", where=path, remedy="give PNG, JPEG, WebP or DICOM"
        )
    _refuse_bomb(image.width, image.height, path)
    if getattr(image, "n_frames", 1) > 1:
        raise ImageError("The image is an animation.", where=path, remedy="give one picture")
    image.load()
    notes = ("rotated as EXIF says",) if image.getexif().get(0x0112, 1) != 1 else ()
    if max(image.size) > MAX_SIDE or notes or _has_metadata(image):
        ImageOps.exif_transpose(image, in_place=True)
        return _encoded(path, image, kind, notes)
    return EncodedImage(
        mime=_MIME[kind],
        sha256=hashlib.sha256(content).hexdigest(),
        width=image.width,
        height=image.height,
        path=path,
        data=content,
    )


def _has_metadata(image: Any) -> bool:
    """Whether anything but pixels, colors and resolution is in the file."""
    texts = {key for key, value in image.info.items() if isinstance(value, str | bytes)}
    return bool(image.getexif()) or bool(texts - {"icc_profile", "transparency", "background"})


def _encoded(
    path: str, image: Any, kind: str, notes: Sequence[str], *, may_show_patient: bool = False
) -> EncodedImage:
    """The pixels alone, scaled down if needed; JPEG at quality 95, the others lossless."""
    from PIL import Image

    _refuse_bomb(image.width, image.height, path)
    said = list(notes)
    if max(image.size) > MAX_SIDE:
        before = f"{image.width} x {image.height}"
        image = image.copy()
        image.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
        said.append(f"scaled from {before} to {image.width} x {image.height}")
    if image.mode in _MODES:
        image = image.convert(_MODES[image.mode])
    options = _ENCODING[kind]
    icc = image.info.get("icc_profile")
    out = io.BytesIO()
    bare = Image.new(image.mode, image.size)
    bare.paste(image)
    if image.mode == "P":
        bare.putpalette(image.getpalette())
    bare.save(out, kind, **options, **({"icc_profile": icc} if icc else {}))
    data = out.getvalue()
    return EncodedImage(
        mime=_MIME[kind],
        sha256=hashlib.sha256(data).hexdigest(),
        width=image.width,
        height=image.height,
        path=path,
        data=data,
        notes=tuple(said),
        may_show_patient=may_show_patient,
    )


def _refuse_bomb(width: int, height: int, path: str) -> None:
    if width * height > MAX_PIXELS:
        raise ImageError(
            f"The image has {width} x {height} pixels; the limit is {MAX_PIXELS}.",
            where=path,
        )
