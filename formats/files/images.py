"""A DICOM image as an 8-bit picture: modality rescale, window, photometric interpretation.

The order is that of DICOM PS3.3 C.11 (modality LUT, then VOI LUT or window, then presentation), the
arithmetic of the window that of C.11.2.1.2. Of several windows the first one counts, a VOI LUT counts
before a window. Without either, the smallest and largest values become black and white.

Images of problems, ready to be sent: PNG, JPEG, WebP as they are, DICOM rendered (formats/files/images.py).

What a file is, its content says, not its name. Only pixels leave: metadata (EXIF, text chunks, a
DICOM header with its patient) is dropped, an EXIF rotation is carried out, an image that is too large
is scaled down and says so. Nothing is guessed: what cannot be read raises with its path.
"""

from __future__ import annotations

import hashlib
import io
import struct
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from traces import InputError

MAX_PIXELS = 100_000_000
"""Larger images are refused before they are decoded: a few bytes can unfold to gigabytes."""


class ImageError(InputError):
    """An image of a problem cannot be read; `where` is its path."""


# --- A DICOM image as an 8-bit picture: modality rescale, window, photometric interpretation


_GREY = {"MONOCHROME1", "MONOCHROME2"}
_COLOUR = {"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT"}


def render_dicom(
    content: bytes, frame: int | None, *, where: str
) -> tuple[Any, tuple[str, ...], bool]:
    """Render one frame.

    Args:
        content: the file.
        frame: 1-based; needed where there is more than one.
        where: the path, for errors.

    Returns:
        The picture (`PIL.Image`, mode L or RGB), notes on what was done, and whether the pixels
        may show who the patient is (BurnedInAnnotation is YES).

    Raises:
        ImageError: no pixels, a photometric interpretation or compression that cannot be read,
            a damaged file, several frames and none named.
    """
    import pydicom
    from PIL import Image
    from pydicom.errors import InvalidDicomError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # oddities of a header are no concern of the pixels
            dataset = pydicom.dcmread(io.BytesIO(content))
            index = _frame_index(dataset, frame, where)
            pixels, notes = _eight_bit(dataset, index, where)
    except ImageError:
        raise
    except (InvalidDicomError, OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, NotImplementedError, RuntimeError, struct.error) as fault:  # fmt: skip
        # what pydicom and its decoders raise on damaged files and on compressions they lack
        raise ImageError(f"The DICOM cannot be rendered: {fault}", where=where) from fault
    burned_in = str(dataset.get("BurnedInAnnotation", "")).upper() == "YES"
    if burned_in:
        notes = (*notes, "text is burned into the pixels")
    return Image.fromarray(pixels), notes, burned_in


def _frame_index(dataset: Any, frame: int | None, where: str) -> int:
    """0-based index of the frame to be shown."""
    if "PixelData" not in dataset:
        raise ImageError("The DICOM holds no pixels.", where=where)
    frames = int(dataset.get("NumberOfFrames") or 1)
    if int(dataset.Rows) * int(dataset.Columns) > MAX_PIXELS:
        raise ImageError(
            f"The DICOM has {dataset.Rows} x {dataset.Columns} pixels, at most {MAX_PIXELS} are"
            " decoded.",
            where=where,
        )
    if frame is None and frames > 1:
        raise ImageError(
            f"The DICOM has {frames} frames.", where=where, remedy="name one: file.dcm#frame=1"
        )
    if frame is not None and frame > frames:
        raise ImageError(f"There is no frame {frame}, there are {frames}.", where=where)
    return (frame or 1) - 1


def _eight_bit(dataset: Any, index: int, where: str) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    from pydicom.pixels.processing import apply_color_lut, apply_modality_lut
    from pydicom.pixels.utils import pixel_array

    photometric = str(dataset.PhotometricInterpretation)
    if photometric == "PALETTE COLOR":
        raw = pixel_array(dataset, index=index)
        coloured: NDArray[Any] = apply_color_lut(raw, dataset)
        shift = coloured.dtype.itemsize * 8 - 8
        return (coloured[..., :3] >> shift).astype(np.uint8), ("palette applied",)
    if photometric in _COLOUR:
        colour = pixel_array(dataset, index=index)  # YBR becomes RGB here
        bits = int(dataset.BitsStored)
        return (colour >> max(0, bits - 8)).astype(np.uint8), ()
    if photometric not in _GREY:
        raise ImageError(f"The photometric interpretation {photometric} is not known.", where=where)
    stored = pixel_array(dataset, index=index)
    values = np.asarray(apply_modality_lut(stored, dataset), dtype=np.float64)
    shade, note = _window(values, dataset)
    if photometric == "MONOCHROME1":
        shade = 1 - shade  # the smallest value is white
        note += ", inverted"
    return np.rint(shade * 255).astype(np.uint8), (note,)


def _window(values: NDArray[np.float64], dataset: Any) -> tuple[NDArray[np.float64], str]:
    """Values in [0, 1] and what was applied."""
    if "VOILUTSequence" in dataset:
        from pydicom.pixels.processing import apply_voi

        table = dataset.VOILUTSequence[0]
        looked_up = np.asarray(apply_voi(values.astype(np.int64), dataset), dtype=np.float64)
        highest = 2 ** int(table.LUTDescriptor[2]) - 1
        return np.clip(looked_up / highest, 0, 1), "VOI LUT applied"
    if "WindowCenter" in dataset and "WindowWidth" in dataset:
        center, width = _first(dataset.WindowCenter), _first(dataset.WindowWidth)
        function = str(dataset.get("VOILUTFunction", "LINEAR") or "LINEAR").upper()
        return _through(values, center, width, function), f"window {center:g}/{width:g} applied"
    lowest, highest = float(values.min()), float(values.max())
    span = (values - lowest) / (highest - lowest) if highest > lowest else np.zeros_like(values)
    return span, f"values {lowest:g} to {highest:g} become black to white"


def _through(
    values: NDArray[np.float64], center: float, width: float, function: str
) -> NDArray[np.float64]:
    """The window functions of PS3.3 C.11.2.1.2 and C.11.2.1.3, onto [0, 1]."""
    if function == "SIGMOID":
        if width <= 0:
            raise ValueError(f"the window width {width:g} is not above 0")
        return 1 / (1 + np.exp(-4 * (values - center) / width))
    exact = function == "LINEAR_EXACT"
    if not exact and function != "LINEAR":
        raise ValueError(f"the VOI LUT function {function} is not known")
    if (width <= 0) if exact else (width < 1):
        raise ValueError(f"the window width {width:g} is too small")
    if exact:
        return np.clip((values - center) / width + 0.5, 0, 1)
    if width == 1:
        return (values > center - 0.5).astype(np.float64)
    return np.clip((values - (center - 0.5)) / (width - 1) + 0.5, 0, 1)


def _first(value: Any) -> float:
    """The first of several values, or the only one."""
    several = isinstance(value, list | tuple) or type(value).__name__ == "MultiValue"
    return float(value[0] if several else value)


# --- Images of problems, ready to be sent: PNG, JPEG, WebP as they are, DICOM rendered


MAX_SIDE = 3072
"""Longer sides are scaled down to this many pixels (Lanczos): more is tiled or thrown away by the services."""
MAX_FILE_BYTES = 500 * 1024 * 1024
"""Larger files are not opened."""

_MIME = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp"}
_ENCODING: dict[str, dict[str, Any]] = {
    "PNG": {},
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"lossless": True},
}
_DICOM_PREAMBLE = 128
_MODES = {"1": "L", "I": "L", "I;16": "L", "F": "L", "CMYK": "RGB", "LAB": "RGB", "HSV": "RGB", "YCbCr": "RGB"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """An image as it is sent. Equal images have equal hashes; the bytes are not compared or shown."""

    mime: str
    """`image/png`, `image/jpeg` or `image/webp`."""
    sha256: str
    """Hash of `data`, in hexadecimal: what request keys and stored requests name."""
    width: int
    """Pixels."""
    height: int
    """Pixels."""
    path: str = field(compare=False)
    """The path as the problem names it."""
    data: bytes = field(repr=False, compare=False)
    """The encoded image."""
    notes: tuple[str, ...] = field(default=(), compare=False)
    """What was done to it: turned, scaled, window applied."""
    may_show_patient: bool = field(default=False, compare=False)
    """DICOM says that text is burned into the pixels, which may name the patient."""


def load_images(paths: Sequence[str], root: Path) -> tuple[EncodedImage, ...]:
    """Load a problem's images; relative paths start at `root`.

    Raises:
        ImageError: one cannot be read; its path is in `where`.
    """
    return tuple(load_image(path, root) for path in paths)


def load_image(path: str, root: Path) -> EncodedImage:
    """Load one image. `file.dcm#frame=N` names a frame (1-based) of a DICOM with several.

    Raises:
        ImageError: missing, too large, of another kind, damaged, or a DICOM that cannot be rendered.
    """
    name, frame = _frame(path)
    content = _read(path, root / name)
    if content[_DICOM_PREAMBLE : _DICOM_PREAMBLE + 4] == b"DICM":
        image, notes, may_show_patient = render_dicom(content, frame, where=path)
        return _encoded(path, image, "PNG", notes, may_show_patient)
    if frame is not None:
        raise ImageError("Only a DICOM has frames to name.", where=path)
    return _picture(path, content)


def _frame(path: str) -> tuple[str, int | None]:
    name, mark, number = path.rpartition("#frame=")
    if not mark:
        return path, None
    if not number.isascii() or not number.isdigit() or int(number) < 1:
        raise ImageError(f"'{number}' is no frame number.", where=path, remedy="count from 1")
    return name, int(number)


def _read(path: str, file: Path) -> bytes:
    try:
        size = file.stat().st_size
        if size > MAX_FILE_BYTES:
            raise ImageError(
                f"The image file has {size} bytes, at most {MAX_FILE_BYTES} are read.", where=path
            )
        content = file.read_bytes()
    except OSError as fault:
        raise ImageError(
            f"The image cannot be opened: {fault.strerror or fault}.",
            where=path,
            remedy="name the folder that the paths start from with --images",
        ) from fault
    if not content:
        raise ImageError("The image file is empty.", where=path)
    return content


def _picture(path: str, content: bytes) -> EncodedImage:
    """A PNG, JPEG or WebP; sent to the byte where there is nothing to drop, turn or scale."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our limit is checked
            image: Any = Image.open(io.BytesIO(content))
            kind = image.format
            if kind not in _MIME:
                raise ImageError(
                    f"The image is a {kind}.", where=path, remedy="give PNG, JPEG, WebP or DICOM"
                )
            _refuse_bomb(image.width, image.height, path)
            if getattr(image, "n_frames", 1) > 1:
                raise ImageError(
                    "The image is an animation.", where=path, remedy="give one picture"
                )
            image.load()
    except ImageError:
        raise
    except UnidentifiedImageError as fault:
        raise ImageError(
            "The file is no image we know.", where=path, remedy="give PNG, JPEG, WebP or DICOM"
        ) from fault
    except Image.DecompressionBombError as fault:
        raise ImageError(f"The image unfolds to too much: {fault}", where=path) from fault
    except (OSError, SyntaxError, ValueError) as fault:
        raise ImageError(f"The image is damaged: {fault}.", where=path) from fault
    turned = ImageOps.exif_transpose(image)
    notes = ("turned as EXIF says",) if image.getexif().get(0x0112, 1) != 1 else ()
    if max(image.size) > MAX_SIDE or notes or _has_metadata(image):
        return _encoded(path, turned, kind, notes)
    return EncodedImage(
        _MIME[kind], hashlib.sha256(content).hexdigest(), image.width, image.height, path, content
    )


def _has_metadata(image: Any) -> bool:
    """Whether anything but pixels, colours and resolution is in the file."""
    texts = {key for key, value in image.info.items() if isinstance(value, str | bytes)}
    return bool(image.getexif()) or bool(texts - {"icc_profile", "transparency", "background"})


def _encoded(
    path: str, image: Any, kind: str, notes: Sequence[str], may_show_patient: bool = False
) -> EncodedImage:
    """The pixels alone, scaled down if need be; JPEG at quality 95, the others without loss."""
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
        _MIME[kind],
        hashlib.sha256(data).hexdigest(),
        image.width,
        image.height,
        path,
        data,
        tuple(said),
        may_show_patient,
    )


def _refuse_bomb(width: int, height: int, path: str) -> None:
    if width * height > MAX_PIXELS:
        raise ImageError(
            f"The image has {width} x {height} pixels, at most {MAX_PIXELS} are decoded.",
            where=path,
        )
