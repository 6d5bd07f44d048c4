"""Documents of every kind, and every kind of bad one by its name."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pypdf import PdfWriter
from pypdf.generic import DecodedStreamObject, DictionaryObject, NameObject, NumberObject

from retrieval.documents import (
    MAX_TEXT_BYTES,
    DocumentProblem,
    file_hash,
    list_files,
    make_document,
    read_documents,
)
from traces.errors import CorpusError
from traces.records import StoredDocument


def read(
    *paths: Path, max_bytes: int = MAX_TEXT_BYTES
) -> tuple[dict[str, StoredDocument], list[DocumentProblem]]:
    found, problems = {}, []
    for entry in read_documents(paths, max_bytes=max_bytes):
        if isinstance(entry, DocumentProblem):
            problems.append(entry)
        else:
            found[entry.name] = entry
    return found, problems


def pdf_bytes(pages: list[str | None], title: str = "", password: str | None = None) -> PdfWriter:
    """A PDF with these page texts; None makes a page that shows an image alone."""
    writer = PdfWriter()
    font = DictionaryObject(
        {
            NameObject("/Type"): NameObject("/Font"),
            NameObject("/Subtype"): NameObject("/Type1"),
            NameObject("/BaseFont"): NameObject("/Helvetica"),
        }
    )
    for text in pages:
        page = writer.add_blank_page(300, 300)
        stream = DecodedStreamObject()
        if text is None:
            image = DecodedStreamObject()
            image.update(
                {
                    NameObject("/Subtype"): NameObject("/Image"),
                    NameObject("/Width"): NumberObject(1),
                    NameObject("/Height"): NumberObject(1),
                    NameObject("/BitsPerComponent"): NumberObject(8),
                    NameObject("/ColorSpace"): NameObject("/DeviceGray"),
                }
            )
            image.set_data(b"\x00")
            shown = DictionaryObject({NameObject("/Im0"): writer._add_object(image)})
            page[NameObject("/Resources")] = DictionaryObject({NameObject("/XObject"): shown})
            painted = DecodedStreamObject()
            painted.set_data(b"q 300 0 0 300 0 0 cm /Im0 Do Q")
            page[NameObject("/Contents")] = writer._add_object(painted)
            continue
        lines = " T* ".join(f"({line}) Tj" for line in text.split("\n"))
        stream.set_data(f"BT /F1 12 Tf 14 TL 20 250 Td {lines} ET".encode())
        fonts = DictionaryObject({NameObject("/F1"): writer._add_object(font)})
        page[NameObject("/Resources")] = DictionaryObject({NameObject("/Font"): fonts})
        page[NameObject("/Contents")] = writer._add_object(stream)
    if title:
        writer.add_metadata({"/Title": title})
    if password is not None:
        writer.encrypt(password, owner_password="owner", algorithm="RC4-128")
    return writer


@contextmanager
def unlisted(folder: Path) -> Iterator[None]:
    """A folder that may not be listed, seen by a user who is not root."""
    root = os.geteuid() == 0
    for parent in [folder, *folder.parents][:5] if root else []:  # a worker's folder too
        parent.chmod(0o755)
    folder.chmod(0)
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
        folder.chmod(0o755)


def test_plain_text_is_kept_to_the_letter_but_for_line_ends(tmp_path: Path) -> None:
    (tmp_path / "warfarin.txt").write_bytes(
        b"\xef\xbb\xbfStart 5 mg.\r\nCheck INR \xe2\x89\xa5 2.\r\n"
    )
    found, problems = read(tmp_path / "warfarin.txt")
    document = found["warfarin.txt"]
    assert document.text == "Start 5 mg.\nCheck INR ≥ 2.\n"
    assert (document.title, document.source) == ("warfarin", str(tmp_path / "warfarin.txt"))
    assert not problems


def test_markdown_takes_its_title_from_its_first_heading(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("Preface.\n\n## Warfarin dosing ##\nStart 5 mg.\n")
    (tmp_path / "b.md").write_text("No heading here.")
    found, _ = read(tmp_path)
    assert found["a.md"].title == "Warfarin dosing"
    assert found["b.md"].title == "b"


def test_folders_are_walked_in_order_and_hidden_files_passed_over(tmp_path: Path) -> None:
    for name in ("b.txt", "a/z.TXT", "a/b/c.md", ".git/d.txt", ".hidden.txt", "LICENSE", "x.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("text of " + name)
    found, problems = read(tmp_path)
    assert list(found) == ["a/b/c.md", "a/z.TXT", "b.txt"]
    assert not problems
    assert list_files([tmp_path]).passed_over == (tmp_path / "LICENSE", tmp_path / "x.png")


def test_medrag_rows_become_documents_of_their_own(tmp_path: Path) -> None:
    rows = [
        {
            "id": "Anatomy_0",
            "title": "Heart",
            "content": "Four chambers.",
            "contents": "Heart. Four",
        },
        {"id": 7, "title": None, "content": "No title.", "url": "https://example.org/7"},
        {"text": "No id.", "source": "GARD"},
    ]
    (tmp_path / "chunk").mkdir()
    plain = tmp_path / "chunk" / "a.jsonl"
    plain.write_text("\n\n".join(json.dumps(row) for row in rows))
    packed = tmp_path / "chunk" / "b.jsonl.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    found, problems = read(tmp_path)
    assert not problems
    assert list(found) == [
        f"chunk/{f}#{i}" for f in ("a.jsonl", "b.jsonl.gz") for i in ("Anatomy_0", 7, 5)
    ]
    assert [(d.title, d.text, d.source) for d in found.values()][:3] == [
        ("Heart", "Four chambers.", str(plain)),
        ("", "No title.", "https://example.org/7"),
        ("", "No id.", "GARD"),
    ]


def test_bad_rows_are_named_and_the_rest_is_read(tmp_path: Path) -> None:
    lines = [
        b'{"id": "1", "content": "good"}',
        b"not json",
        b"[1, 2]",
        b'{"id": "4"}',
        b'{"id": "5", "content": 5}',
        b'{"id": "1", "content": "another"}',
        b'{"id": "7", "content": "  "}',
        b'{"id": "8", "content": "nul \\u0000"}',
        b'{"id": "9", "content": "half \\ud83d"}',
        b'{"id": "10", "content": "' + b"x" * 500 + b'"}',
        b'{"id": "11", "content": "caf\xe9"}',
        b'{"id": true, "content": "x"}',
        b'{"id": "13", "content": "x", "title": ["t"]}',
        b'{"id": "14", "content": ' + b"9" * 0 + b"[" * 150,
        b'{"id": "15", "content": "one text", "content": "another"}',
        b'{"id": "last", "content": "good too"}',
    ]
    (tmp_path / "rows.jsonl").write_bytes(b"\n".join(lines))
    found, problems = read(tmp_path / "rows.jsonl", max_bytes=200)
    assert list(found) == ["rows.jsonl#1", "rows.jsonl#last"]
    assert [(problem.line, problem.id) for problem in problems] == [
        *[(2, None), (3, None), (4, "4"), (5, "5"), (6, "1"), (7, "7"), (8, "8"), (9, "9")],
        *[(10, None), (11, None), (12, None), (13, "13"), (14, None), (15, None)],
    ]
    words = ["JSON", "object", "content", "not text", "repeats", "no text", "NUL", "surrogate"]
    words += ["longer than 200", "UTF-8", "id", "title", "JSON", "'content' twice"]
    for problem, word in zip(problems, words, strict=True):
        assert word in problem.reason


def test_a_cut_off_gzip_keeps_what_came_before(tmp_path: Path) -> None:
    rows = "".join(
        json.dumps({"id": str(i), "content": f"text {i * 7919}"}) + "\n" for i in range(5000)
    )
    packed = gzip.compress(rows.encode())
    (tmp_path / "cut.jsonl.gz").write_bytes(packed[: len(packed) // 2])
    (tmp_path / "none.jsonl.gz").write_bytes(b"this is no gzip")
    found, problems = read(tmp_path)
    assert len(found) > 1000
    assert [problem.path.name for problem in problems] == ["cut.jsonl.gz", "none.jsonl.gz"]
    assert all("damaged or cut off" in problem.reason for problem in problems)


Write = Callable[[Path], object]
BAD: dict[str, tuple[Write, str]] = {
    "empty.txt": (lambda path: path.write_bytes(b""), "0 bytes"),
    "blank.md": (lambda path: path.write_text(" \n\t\n"), "no text"),
    "binary.txt": (lambda path: path.write_bytes(b"ab\x00cd"), "binary"),
    "latin1.txt": (
        lambda path: path.write_bytes("café".encode("latin-1")),
        "byte 0xe9 at offset 3",
    ),
    "utf16.txt": (lambda path: path.write_bytes("no mark".encode("utf-16-le")), "binary"),
    "cut16.txt": (lambda path: path.write_bytes(b"\xff\xfea\x00b"), "'utf-16' and is not"),
    "odd.html": (
        lambda path: path.write_bytes(b'<meta charset="klingon"><p>caf\xe9</p>'),
        "no encoding",
    ),
    "liar.html": (
        lambda path: path.write_bytes(b'<meta charset="ascii"><p>caf\xe9</p>'),
        "'ascii' and is not",
    ),
    "scripts.html": (lambda path: path.write_text("<script>run()</script>"), "no text"),
    "garbage.pdf": (lambda path: path.write_bytes(b"\x89PNG no pdf at all"), "not a readable PDF"),
    "locked.pdf": (lambda path: pdf_bytes(["Text"], password="secret").write(path), "encrypted"),
    "scan.pdf": (lambda path: pdf_bytes([None]).write(path), "no text layer"),
    "letter.docx": (lambda path: path.write_bytes(b"PK"), "not a readable Word document"),
    "letter.odt": (lambda path: path.write_bytes(b"PK"), "type that is not read"),
    "README": (lambda path: path.write_text("Read me."), "no suffix"),
    "broken.nxml": (lambda path: path.write_text("<article><p>"), "not readable XML"),
    "other.xml": (lambda path: path.write_text("<feed><p>x</p></feed>"), "JATS"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_document_is_named_and_the_rest_is_read(tmp_path: Path, name: str) -> None:
    write, words = BAD[name]
    write(tmp_path / name)
    (tmp_path / "zz-good.txt").write_text("Still read.")
    found, problems = read(tmp_path)
    assert list(found) == ["zz-good.txt"]
    assert [problem.path for problem in problems] == [tmp_path / name]
    assert words in problems[0].reason


@pytest.mark.parametrize("name", ["dump.txt", "dump.md", "dump.html", "dump.pdf"])
def test_a_file_beyond_the_limit_is_named_with_the_option(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("eleven char")
    (tmp_path / "small.txt").write_text("ten chars.")
    found, problems = read(tmp_path, max_bytes=10)
    assert list(found) == ["small.txt"]
    assert [problem.path.name for problem in problems] == [name]
    assert "more than 10" in problems[0].reason
    assert "--max-file-mb" in problems[0].reason


def bytes_read() -> int:
    """What this process has read so far, from files and pipes."""
    try:
        counters = Path("/proc/self/io").read_text()
    except OSError:
        pytest.skip("this system does not count what a process reads")
    return int(counters.split("rchar:")[1].split()[0])


def test_a_file_of_500_mb_is_not_read_to_its_end(tmp_path: Path) -> None:
    for name, start in (("text.txt", b"words "), ("binary.md", b"\x7fELF\x00")):
        with (tmp_path / name).open("wb") as file:
            file.write(start)
            if name == "text.txt":
                file.write(b"x" * (1 << 16))
            file.truncate(500_000_000)  # sparse: the disk holds next to nothing
    before = bytes_read()
    found, problems = read(tmp_path)
    assert bytes_read() - before < 10_000_000
    assert not found
    reasons = {problem.path.name: problem.reason for problem in problems}
    assert "500,000,000 bytes" in reasons["text.txt"]
    assert "binary" in reasons["binary.md"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_byte_order_marks_name_the_encoding(tmp_path: Path, encoding: str) -> None:
    text = "Maß ≥ 5 µg, naïve."
    (tmp_path / "a.txt").write_bytes(text.encode(encoding))
    found, problems = read(tmp_path)
    assert not problems
    assert found["a.txt"].text == text


def test_a_page_may_name_its_charset_and_utf8_goes_before_it(tmp_path: Path) -> None:
    page = '<html><head><META http-equiv="x" content="text/html; charset={}"></head><p>25 µg – café</p>'
    (tmp_path / "old.html").write_bytes(page.format("windows-1252").encode("windows-1252"))
    (tmp_path / "new.html").write_bytes(page.format("windows-1252").encode())
    found, problems = read(tmp_path)
    assert not problems
    assert [document.text for document in found.values()] == ["25 µg – café"] * 2


def test_a_folder_that_cannot_be_listed_is_named(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open" / "a.txt").write_text("a")
    closed = tmp_path / "closed"
    closed.mkdir()
    with unlisted(closed):
        listing = list_files([tmp_path])
    assert [file.name for file in listing.files] == ["open/a.txt"]
    assert [problem.path for problem in listing.problems] == [closed]
    assert listing.folders == (), "a folder that was not seen as a whole is not compared"
    assert list_files([tmp_path / "open"]).folders == ((tmp_path / "open").resolve(),)


def test_pdf_text_page_by_page(tmp_path: Path) -> None:
    writer = pdf_bytes(
        ["Warfarin is started\nat 5 mg.\nSecond beta-\nblocker line.", "Page two."], "Dosing"
    )
    writer.write(tmp_path / "open.pdf")
    pdf_bytes(["Readable by all."], password="").write(tmp_path / "owner.pdf")
    found, problems = read(tmp_path)
    assert not problems
    # A line that goes on in lower case is one sentence; hyphens stay as printed.
    assert (
        found["open.pdf"].text
        == "Warfarin is started at 5 mg.\nSecond beta-blocker line.\n\nPage two."
    )
    assert found["open.pdf"].title == "Dosing"
    assert found["owner.pdf"].text == "Readable by all."


def test_image_only_pages_of_a_pdf_are_named_beside_its_text(tmp_path: Path) -> None:
    pdf_bytes(["First.", None, "Third.", None]).write(tmp_path / "mixed.pdf")
    found, problems = read(tmp_path)
    assert found["mixed.pdf"].text == "First.\n\nThird."
    assert [problem.partial for problem in problems] == [True]
    assert "pages 2, 4" in problems[0].reason


def test_a_missing_path_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    with pytest.raises(CorpusError, match="nowhere"):
        read_documents([tmp_path, tmp_path / "nowhere"])


def test_two_documents_of_one_name_are_no_replacement(tmp_path: Path) -> None:
    for folder in ("nice", "who"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "README.md").write_text(f"# {folder}")
    found, problems = read(tmp_path / "nice", tmp_path / "who")
    assert found["README.md"].title == "nice"
    assert [problem.path for problem in problems] == [tmp_path / "who" / "README.md"]
    assert not read(tmp_path)[1]


def test_the_hash_follows_title_and_text() -> None:
    first = make_document("a", "T", "one\r\ntwo", "here")
    assert first.sha256 == make_document("b", " T ", "one\ntwo", "there").sha256
    assert first.sha256 != make_document("a", "U", "one\ntwo", "here").sha256
    assert first.sha256 != make_document("a", "To", "ne\ntwo", "here").sha256


def test_a_named_pipe_is_named_and_never_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.txt")
    (tmp_path / "b.txt").write_text("The dose is 5 mg.")
    documents, problems = read(tmp_path)
    assert list(documents) == ["b.txt"]
    assert [(problem.path.name, "pipe" in problem.reason) for problem in problems] == [
        ("a.txt", True)
    ]
    with pytest.raises(OSError, match="pipe"):
        file_hash(tmp_path / "a.txt")


def test_a_link_to_a_folder_is_named_and_not_followed(tmp_path: Path) -> None:
    corpus, other = tmp_path / "corpus", tmp_path / "other"
    for folder in (corpus, other):
        folder.mkdir()
        (folder / "a.txt").write_text("Some text.")
    (corpus / "linked").symlink_to(other)
    (corpus / "round").symlink_to(corpus)
    (corpus / ".hidden").symlink_to(other)
    (corpus / "file.txt").symlink_to(other / "a.txt")
    listing = list_files([corpus])
    assert [file.name for file in listing.files] == ["a.txt", "file.txt"]
    assert [problem.path for problem in listing.problems] == [corpus / "linked", corpus / "round"]
    assert all("add that folder itself" in problem.reason for problem in listing.problems)
    # a link that is named by the user is the folder behind it
    assert [file.name for file in list_files([corpus / "linked"]).files] == ["a.txt"]
