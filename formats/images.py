"""Images of problems, ready to be sent: PNG, JPEG, WebP as they are, DICOM rendered (formats/dicom.py).

What a file is, its content says, not its name. Only pixels leave: metadata (EXIF, text chunks, a
DICOM header with its patient) is dropped, an EXIF rotation is carried out, an image that is too large
is scaled down and says so. Nothing is guessed: what cannot be read raises with its path.
"""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from formats.image_error import MAX_PIXELS, ImageError

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
        from formats.dicom import render_dicom

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
