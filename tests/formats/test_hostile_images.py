"""Paths that leave the folder of images, files that are no files, and decompression bombs."""

from __future__ import annotations

import contextlib
import io
import os
import resource
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from formats.files import images
from formats.files.images import ImageError, load_image
from inference import ProblemImages
from tests.formats.picture_files import dicom, picture
from traces import Abstention, AbstentionReason, Problem

EXIF = Image.Exif()
EXIF[0x0112] = 6
KINDS = [  # made once: the length of a generated UID varies
    picture("PNG", exif=EXIF),
    picture("JPEG", exif=EXIF),
    picture("WEBP"),
    dicom(np.arange(120, dtype=np.uint16).reshape(10, 12), WindowWidth=9, WindowCenter=3),
]
pytestmark = pytest.mark.skipif(os.name != "posix", reason="links, pipes and devices of POSIX")


def png(width: int, height: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """A gray PNG whose rows are all missing, with further chunks."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        checksum = struct.pack(">L", zlib.crc32(kind + data))
        return struct.pack(">L", len(data)) + kind + data + checksum

    header = struct.pack(">LLBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = ((b"IHDR", header), *chunks, (b"IDAT", zlib.compress(b"")), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder of images beside a secret, with links and a pipe in it."""
    (tmp_path / "secret.png").write_bytes(picture("PNG"))
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "x.png").write_bytes(picture("PNG"))
    folder = tmp_path / "images"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.png").write_bytes(picture("PNG"))
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    (folder / "linked").symlink_to(tmp_path / "outside")
    (folder / "inner.png").symlink_to(folder / "a.png")
    (folder / "loop.png").symlink_to(folder / "loop.png")
    (folder / "zero.png").symlink_to("/dev/zero")
    os.mkfifo(folder / "pipe.png")
    return folder


@pytest.mark.parametrize(
    "path",
    ["../secret.png", "sub/../../secret.png", "link.png", "linked/x.png", "/dev/zero", "zero.png"],
)
def test_nothing_outside_the_folder_is_opened(
    root: Path, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*given: object, **more: object) -> int:
        raise AssertionError(f"opened {given}")

    monkeypatch.setattr(os, "open", never)
    with pytest.raises(ImageError, match="outside the folder of images") as caught:
        load_image(path, root)
    assert caught.value.where == path
    assert "--images" in (caught.value.remedy or "")


def test_an_absolute_path_counts_by_where_it_leads(root: Path) -> None:
    assert load_image(str(root / "a.png"), root).width == 40
    assert load_image("sub/../a.png", root).width == 40
    assert load_image("inner.png", root).width == 40
    with pytest.raises(ImageError, match="outside"):
        load_image(str(root.parent / "secret.png"), root)


def test_the_folder_itself_may_be_a_link(root: Path) -> None:
    (root.parent / "alias").symlink_to(root)
    assert load_image("a.png", root.parent / "alias").width == 40


@pytest.mark.parametrize(
    ("path", "what"),
    [
        ("pipe.png", "not a regular file"),
        ("sub", "cannot be opened|not a regular file"),
        ("loop.png", "cannot be opened"),
        ("a\0.png", "cannot be opened"),
        ("\udcff.png", "cannot be opened"),
        ("x" * 5000, "cannot be opened"),
        ("a.png#frame=" + "9" * 5000, "not a frame number"),
        ("http://example.com/a.png", "cannot be opened"),
    ],
)
def test_odd_paths_are_refused_by_name(root: Path, path: str, what: str) -> None:
    with pytest.raises(ImageError, match=what) as caught:
        load_image(path, root)
    assert caught.value.where == path


def test_a_device_is_no_image_even_in_the_folder() -> None:
    with pytest.raises(ImageError, match="not a regular file"):
        load_image("zero", Path("/dev"))


def test_an_unreadable_image_is_an_abstention_of_its_problem(root: Path) -> None:
    loader = ProblemImages(root)
    for path in ("../secret.png", "link.png", "pipe.png"):
        problem = Problem("p", "What is shown?", images=(path,))
        found = loader.sendable(problem, hosted=True, allow_phi=False)
        assert isinstance(found, Abstention)
        assert found.reason is AbstentionReason.UNREADABLE
        assert found.detail.startswith(path)


def test_a_file_over_the_limit_is_not_read(root: Path) -> None:
    with (root / "large.png").open("wb") as stream:
        stream.truncate(images.MAX_FILE_BYTES + 1)
    with pytest.raises(ImageError, match=r"52428801 bytes; the limit is 52428800"):
        load_image("large.png", root)


def test_bombs_are_refused_before_they_are_decoded(root: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    bombs = {
        "300 megapixels": png(30_000, 10_000),
        "limit is 100000000": png(10_001, 10_000),
        "damaged": png(8, 8, (b"zTXt", b"k\0\0" + zlib.compress(b"x" * 40_000_000))),
        "50000001|50001": dicom(np.zeros((4, 4), np.uint8), Rows=50_001, Columns=1_000),
    }
    for what, content in bombs.items():
        (root / "bomb").write_bytes(content)
        with pytest.raises(ImageError, match=f"{what}|too large|values"):
            load_image("bomb", root)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # kilobytes


def test_a_deflated_dicom_is_inflated_in_bounds(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pydicom import dcmread
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    dataset = dcmread(io.BytesIO(dicom(np.zeros((300, 300), np.uint8))))
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dataset.save_as(root / "deflated.dcm", enforce_file_format=True)
    assert load_image("deflated.dcm", root).width == 300
    monkeypatch.setattr(images, "_MAX_INFLATED", 50_000)
    with pytest.raises(ImageError, match="inflates to more than"):
        load_image("deflated.dcm", root)


@pytest.mark.parametrize("name", ["SC_rgb_jpeg_gdcm.dcm", "JPEG2000.dcm"])
def test_the_size_that_a_compressed_frame_states_counts(root: Path, name: str) -> None:
    from pydicom import dcmread
    from pydicom.data import get_testdata_file
    from pydicom.encaps import encapsulate, get_frame

    dataset = dcmread(str(get_testdata_file(name, download=False)))
    frame = bytearray(get_frame(dataset.PixelData, 0, number_of_frames=1))
    assert images._coded_size(bytes(frame)) == (dataset.Rows, dataset.Columns)
    if name.startswith("JPEG2000"):
        frame[8:16] = struct.pack(">LL", 60_000, 60_000)
    else:
        place = frame.index(struct.pack(">HH", dataset.Rows, dataset.Columns))
        frame[place : place + 4] = struct.pack(">HH", 60_000, 60_000)
    dataset.PixelData = encapsulate([bytes(frame)])
    dataset.save_as(root / "bomb.dcm")
    with pytest.raises(ImageError, match="60000 x 60000"):
        load_image("bomb.dcm", root)


def test_a_number_of_6000_digits_in_a_dicom_is_damage(root: Path) -> None:
    number = b"9" * 6000
    content = dicom(np.zeros((4, 4), np.uint8), NumberOfFrames=1)
    place = content.index(b"IS\x02\x00", 132) + 2
    grown = content[:place] + struct.pack("<H", 6000) + number + content[place + 4 :]
    (root / "long.dcm").write_bytes(grown)
    with pytest.raises(ImageError, match="cannot be rendered") as caught:
        load_image("long.dcm", root)
    assert caught.value.where == "long.dcm"


@pytest.mark.slow
@given(st.data())
@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_damage_is_an_image_error(tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(data.draw(st.sampled_from(KINDS)))
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] = data.draw(st.integers(0, 255))
    (tmp_path / "x").write_bytes(content)
    with contextlib.suppress(ImageError):
        assert load_image("x", tmp_path).data
