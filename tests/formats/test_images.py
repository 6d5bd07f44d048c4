"""Images: the pixels that are sent, checked against numpy; what cannot be read names its path."""

from __future__ import annotations

import contextlib
import hashlib
import io
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from formats.files import images
from formats.files.images import EncodedImage, ImageError, load_image, load_images
from tests.formats.picture_files import dicom, picture

RAMP = np.arange(-200, 1000, 10, dtype=np.int16).reshape(10, 12)


def load(tmp_path: Path, content: bytes, name: str = "x.bin") -> EncodedImage:
    (tmp_path / name.partition("#")[0]).write_bytes(content)
    return load_image(name, tmp_path)


def shown(image: EncodedImage) -> NDArray[Any]:
    return np.asarray(Image.open(io.BytesIO(image.data)))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_clean_picture_is_sent_to_the_byte_whatever_its_name(tmp_path: Path, kind: str) -> None:
    content = picture(kind)
    image = load(tmp_path, content, "scan.dcm")
    assert image.data == content
    assert image.mime == f"image/{kind.lower()}"
    assert (image.width, image.height, image.notes) == (40, 30, ())
    assert image.sha256 == hashlib.sha256(content).hexdigest()
    assert load_images(["scan.dcm"], tmp_path) == (image,)


def test_metadata_is_dropped_and_pixels_stay(tmp_path: Path) -> None:
    info = PngInfo()
    info.add_text("Patient", "SECRET")
    image = load(tmp_path, picture("PNG", pnginfo=info))
    assert b"SECRET" not in image.data
    assert np.array_equal(shown(image), shown(load(tmp_path, picture("PNG"))))
    exif = Image.Exif()
    exif[0x010E] = "SECRET"
    photo = load(tmp_path, picture("JPEG", exif=exif))
    assert b"SECRET" not in photo.data
    assert photo.mime == "image/jpeg"


def test_exif_rotation_is_carried_out_and_said(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image = load(tmp_path, picture("PNG", exif=exif))
    assert (image.width, image.height) == (30, 40)
    assert image.notes == ("rotated as EXIF says",)
    assert np.array_equal(shown(image), np.rot90(shown(load(tmp_path, picture("PNG"))), -1))


def test_large_picture_is_scaled_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "MAX_SIDE", 20)
    image = load(tmp_path, picture("PNG"))
    assert (image.width, image.height) == (20, 15)
    assert image.notes == ("scaled from 40 x 30 to 20 x 15",)
    assert shown(image).shape == (15, 20, 3)


def bomb() -> bytes:
    """A PNG header that promises 30,000 x 30,000 pixels."""
    content = bytearray(picture("PNG"))
    content[16:24] = (30_000).to_bytes(4, "big") * 2
    import zlib

    content[29:33] = zlib.crc32(bytes(content[12:29])).to_bytes(4, "big")
    return bytes(content)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "is empty"),
        (b"not an image", "not a supported image"),
        (picture("GIF"), "is a GIF"),
        (picture("PNG")[:60], "damaged"),
        (picture("JPEG")[:200], "damaged"),
        (bomb(), "too large when decompressed"),
        (b"\0" * 128 + b"DICM" + b"\xff" * 40, "cannot be rendered|no pixels"),
        (dicom(RAMP)[:400], "has no pixels|cannot be rendered"),
        (dicom(np.zeros((3, 4, 5), np.uint8)), "3 frames"),
        (dicom(RAMP, PhotometricInterpretation="HSV"), "HSV is not supported|cannot be rendered"),
        (dicom(RAMP, NumberOfFrames=9), "9 frames"),
    ],
)
def test_what_cannot_be_read_names_its_path(tmp_path: Path, content: bytes, what: str) -> None:
    with pytest.raises(ImageError, match=what) as caught:
        load(tmp_path, content, "case 7.dcm")
    assert caught.value.where == "case 7.dcm"


def test_animation_missing_file_and_frames_of_pictures(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "blue")]
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:], lossless=True)
    for path, what in (
        ("a.webp", "animation"),
        ("missing.png", "cannot be opened"),
        (".", "cannot be opened"),
        ("a.webp#frame=0", "not a frame number"),
        ("a.webp#frame=x", "not a frame number"),
        ("a.webp#frame=1", "Only a DICOM has frames"),
    ):
        with pytest.raises(ImageError, match=what):
            load_image(path, tmp_path)


@pytest.mark.slow
@given(st.binary(max_size=300), st.integers(0, 600))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damaged_files_raise_nothing_but_their_error(
    tmp_path: Path, noise: bytes, place: int
) -> None:
    for whole in (picture("PNG"), dicom(RAMP)):
        content = whole[:place] + noise + whole[place + len(noise) :]
        with contextlib.suppress(ImageError):
            assert load(tmp_path, content).data


# DICOM: against the standard's formulas, written out ---------------------------------------------


def expected_linear(values: NDArray[Any], center: float, width: float) -> NDArray[Any]:
    """PS3.3 C.11.2.1.2.1, value by value."""
    out = np.empty(values.shape)
    for place, x in np.ndenumerate(values.astype(float)):
        if x <= center - 0.5 - (width - 1) / 2:
            out[place] = 0
        elif x > center - 0.5 + (width - 1) / 2:
            out[place] = 255
        else:
            out[place] = ((x - (center - 0.5)) / (width - 1) + 0.5) * 255
    return np.rint(out)


def test_window_and_rescale(tmp_path: Path) -> None:
    content = dicom(RAMP, WindowCenter=40, WindowWidth=400, RescaleSlope=2, RescaleIntercept=-100)
    image = load(tmp_path, content)
    assert np.array_equal(shown(image), expected_linear(RAMP * 2.0 - 100, 40, 400))
    assert image.notes == ("window 40/400 applied",)
    assert image.mime == "image/png"
    assert b"SECRET" not in image.data


def test_first_window_counts_and_width_one_is_a_threshold(tmp_path: Path) -> None:
    several = dicom(RAMP, WindowCenter=[100, 7], WindowWidth=[200, 9])
    assert np.array_equal(shown(load(tmp_path, several)), expected_linear(RAMP, 100, 200))
    step = dicom(RAMP, WindowCenter=100, WindowWidth=1)
    assert np.array_equal(shown(load(tmp_path, step)), np.where(RAMP > 99.5, 255, 0))


def test_other_window_functions(tmp_path: Path) -> None:
    exact = dicom(RAMP, WindowCenter=100, WindowWidth=200, VOILUTFunction="LINEAR_EXACT")
    wanted = np.rint(np.clip((RAMP - 100) / 200 + 0.5, 0, 1) * 255)
    assert np.array_equal(shown(load(tmp_path, exact)), wanted)
    sigmoid = dicom(RAMP, WindowCenter=100, WindowWidth=200, VOILUTFunction="SIGMOID")
    wanted = np.rint(255 / (1 + np.exp(-4 * (RAMP - 100) / 200)))
    assert np.array_equal(shown(load(tmp_path, sigmoid)), wanted)


def test_without_a_window_the_extremes_are_black_and_white(tmp_path: Path) -> None:
    image = load(tmp_path, dicom(RAMP))
    wanted = np.rint((RAMP - RAMP.min()) / (RAMP.max() - RAMP.min()) * 255)
    assert np.array_equal(shown(image), wanted)
    assert image.notes == ("values -200 to 990 become black to white",)
    flat = load(tmp_path, dicom(np.full((4, 5), 7, np.uint16)))
    assert not shown(flat).any()


def test_monochrome1_is_inverted(tmp_path: Path) -> None:
    plain = shown(load(tmp_path, dicom(RAMP, WindowCenter=400, WindowWidth=1200)))
    inverted = load(tmp_path, dicom(RAMP, "MONOCHROME1", WindowCenter=400, WindowWidth=1200))
    assert np.abs(255.0 - shown(inverted) - plain).max() <= 1
    assert "inverted" in inverted.notes[0]
    assert shown(inverted)[0, 0] > shown(inverted)[-1, -1]


def test_voi_lut_counts_before_a_window(tmp_path: Path) -> None:
    from pydicom.dataset import Dataset

    table = Dataset()
    table.LUTDescriptor = [256, 0, 16]
    table.LUTData = np.array([65535 - 257 * i for i in range(256)], "<u2").tobytes()
    values = np.arange(120, dtype=np.uint16).reshape(10, 12)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        content = dicom(values, VOILUTSequence=[table], WindowCenter=1, WindowWidth=2)
    assert np.array_equal(shown(load(tmp_path, content)), 255 - values)


def test_rgb_and_ybr(tmp_path: Path) -> None:
    colours = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [10, 20, 30]]] * 2, dtype=np.uint8)
    assert np.array_equal(shown(load(tmp_path, dicom(colours, "RGB"))), colours)
    matrix = np.array(  # PS3.3 C.7.6.3.1.2
        [[0.299, 0.587, 0.114], [-0.1687, -0.3313, 0.5], [0.5, -0.4187, -0.0813]]
    )
    ybr = np.clip(np.rint(colours @ matrix.T + [0, 128, 128]), 0, 255).astype(np.uint8)
    back = shown(load(tmp_path, dicom(ybr, "YBR_FULL"))).astype(int)
    assert np.abs(back - colours).max() <= 2


def test_a_named_frame_and_only_that(tmp_path: Path) -> None:
    frames = np.stack([np.full((4, 5), value, np.uint8) for value in (10, 20, 30)])
    content = dicom(frames, WindowCenter=128, WindowWidth=256)
    assert set(shown(load(tmp_path, content, "v.dcm#frame=2")).ravel()) == {20}
    with pytest.raises(ImageError, match="no frame 4"):
        load(tmp_path, content, "v.dcm#frame=4")


def test_burned_in_text_is_told(tmp_path: Path) -> None:
    image = load(tmp_path, dicom(RAMP, BurnedInAnnotation="YES"))
    assert image.may_show_patient
    assert "burned" in image.notes[-1]
    assert not load(tmp_path, dicom(RAMP, BurnedInAnnotation="NO")).may_show_patient


EMPTY = [
    {"RescaleSlope": None, "RescaleIntercept": None},
    {"WindowCenter": None, "WindowWidth": None},
    {"WindowCenter": 40, "WindowWidth": None},
    {"WindowCenter": 0, "WindowWidth": 0},
    {"WindowCenter": 100, "WindowWidth": -5},
    {"VOILUTSequence": []},
    {"VOILUTFunction": "", "ModalityLUTSequence": []},
    {"PixelPaddingValue": None, "PixelPaddingRangeLimit": None},
    {"NumberOfFrames": None},
    {"RescaleSlope": 0, "RescaleIntercept": 3},
]


@pytest.mark.parametrize("tags", EMPTY, ids=lambda tags: "-".join(tags))
def test_attributes_without_a_value_count_as_absent(tmp_path: Path, tags: dict[str, Any]) -> None:
    plain = shown(load(tmp_path, dicom(RAMP)))
    assert np.array_equal(shown(load(tmp_path, dicom(RAMP, **tags))), plain)


def test_the_first_window_that_has_both_values_counts(tmp_path: Path) -> None:
    several = dicom(RAMP, WindowCenter=["", 100], WindowWidth=["", 200])
    one = dicom(RAMP, WindowCenter=100, WindowWidth=200)
    assert np.array_equal(shown(load(tmp_path, several)), shown(load(tmp_path, one)))


def test_half_a_rescale_is_completed(tmp_path: Path) -> None:
    window: dict[str, Any] = {"WindowCenter": 400, "WindowWidth": 1000}
    half = shown(load(tmp_path, dicom(RAMP, RescaleSlope=2, **window)))
    whole = shown(load(tmp_path, dicom(RAMP, RescaleSlope=2, RescaleIntercept=0, **window)))
    assert np.array_equal(half, whole)


@pytest.mark.parametrize("photometric", ["MONOCHROME2", "MONOCHROME1"])
def test_padding_is_black_and_no_extreme(tmp_path: Path, photometric: str) -> None:
    pixels = np.array([[-2000, 0, 50, 100]], np.int16)
    image = load(tmp_path, dicom(pixels, photometric, PixelPaddingValue=-2000))
    expected = [0, 0, 128, 255] if photometric == "MONOCHROME2" else [0, 255, 127, 0]
    assert shown(image).tolist() == [pytest.approx(expected, abs=1)]
    assert any("padding" in note for note in image.notes)


def test_a_range_of_padding_values(tmp_path: Path) -> None:
    pixels = np.array([[0, 10, 1000, 1100, 1200]], np.uint16)
    tags: dict[str, Any] = {"PixelPaddingValue": 0, "PixelPaddingRangeLimit": 10}
    assert shown(load(tmp_path, dicom(pixels, **tags))).tolist() == [
        pytest.approx([0, 0, 0, 128, 255], abs=1)
    ]


def compressed(name: str) -> bytes:
    """A test file of pydicom, as it comes with the package."""
    from pydicom.data import get_testdata_file

    return Path(str(get_testdata_file(name, download=False))).read_bytes()


@pytest.mark.parametrize("name", ["SC_rgb_jpeg_gdcm.dcm", "JPGExtended.dcm"])
def test_compressed_files_are_read_with_the_extra(tmp_path: Path, name: str) -> None:
    pytest.importorskip("libjpeg")
    assert int(np.ptp(shown(load(tmp_path, compressed(name))))) > 120


def test_lossless_compression_gives_the_pixels_of_the_plain_file(tmp_path: Path) -> None:
    pytest.importorskip("libjpeg")
    packed, plain = (
        shown(load(tmp_path, compressed(name)))
        for name in ("MR_small_jpeg_ls_lossless.dcm", "MR_small.dcm")
    )
    assert np.array_equal(packed, plain)


def test_without_the_extra_the_reason_names_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pydicom.pixels.decoders.base import get_decoder

    content = compressed("MR_small_jpeg_ls_lossless.dcm")
    decoder = get_decoder(pydicom.dcmread(io.BytesIO(content)).file_meta.TransferSyntaxUID)
    monkeypatch.setattr(decoder, "_available", {})
    monkeypatch.setitem(sys.modules, "libjpeg", None)
    with pytest.raises(ImageError) as caught:
        load(tmp_path, content)
    assert caught.value.remedy == "pip install 'stepgold[dicom]'"
    assert "JPEG-LS" in caught.value.what
    assert "\n" not in caught.value.what
