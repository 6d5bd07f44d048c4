"""A DICOM image as an 8-bit picture: modality rescale, window, photometric interpretation.

The order is that of DICOM PS3.3 C.11 (modality LUT, then VOI LUT or window, then presentation), the
arithmetic of the window that of C.11.2.1.2. Of several windows the first one counts, a VOI LUT counts
before a window. Without either, the smallest and largest values become black and white.
"""

from __future__ import annotations

import io
import struct
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from formats.image_error import MAX_PIXELS, ImageError

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
