"""What says which weights answered: all bytes of small files, a piece of every stride of large ones."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

from inference.local.checkpoints import weights_fingerprint

GIB = 1 << 30


def sparse(path: Path, size: int, at: int = 0, content: bytes = b"") -> None:
    """A file of zeros that takes next to no disk, with some content in it."""
    with path.open("wb") as file:
        file.truncate(size)
        file.seek(at)
        file.write(content)


def test_small_weights_are_hashed_whole(tmp_path: Path) -> None:
    assert weights_fingerprint(tmp_path) is None
    (tmp_path / "b.safetensors").write_bytes(b"two")
    (tmp_path / "a.safetensors").write_bytes(b"one")
    assert weights_fingerprint(tmp_path) == f"sha256:{sha256(b'onetwo').hexdigest()[:16]}"


def test_large_weights_are_told_apart_by_size_and_by_matrices_that_differ(tmp_path: Path) -> None:
    file, seen = tmp_path / "model.safetensors", set()
    matrix = 4096 * 4096 * 2
    for size, at in ((GIB + 1, 0), (GIB + 2, 0), (GIB + 1, 5 * matrix), (GIB + 1, GIB - matrix)):
        sparse(file, size, at, b"\1" * matrix)
        seen.add(weights_fingerprint(tmp_path))
        assert weights_fingerprint(tmp_path) in seen
    assert len(seen) == 4
    assert all(str(one).startswith("sampled-sha256:") for one in seen)


def test_large_weights_of_the_hub_are_named_by_their_snapshot(tmp_path: Path) -> None:
    folder = tmp_path / "snapshots" / "0123abcd"
    folder.mkdir(parents=True)
    sparse(folder / "model.safetensors", GIB + 1)
    assert weights_fingerprint(folder) == "0123abcd"
