"""The house rules that a machine can hold: arrows, heavy libraries, sizes, forbidden habits."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

MAY_IMPORT: dict[str, frozenset[str]] = {
    "traces": frozenset(),
    "formats": frozenset({"traces"}),
    "retrieval": frozenset({"traces"}),
    "storage": frozenset({"traces"}),
    "evaluation": frozenset({"traces"}),
    "inference": frozenset({"traces", "formats"}),
    "judge": frozenset({"traces", "retrieval", "inference"}),
    "labeling": frozenset({"traces", "inference"}),
    "scoring": frozenset({"traces", "retrieval", "inference"}),
    "lab": frozenset(
        {"traces", "formats", "retrieval", "inference", "labeling", "scoring", "evaluation"}
    ),
}
MAY_IMPORT["stepgold"] = frozenset(MAY_IMPORT)
MAY_IMPORT["commands"] = frozenset(MAY_IMPORT)
OURS = frozenset({*MAY_IMPORT, "cli"})
"""cli imports the commands; nobody else imports those two."""

ONLY_IN: dict[str, tuple[str, ...]] = {
    "faiss": ("retrieval/index/vectors.py",),
    "sentence_transformers": ("retrieval/index/sentence_models.py", "retrieval/search/rerank.py"),
    "bm25s": ("retrieval/search/bm25.py",),
    "pypdfium2": ("retrieval/documents/pdf.py",),
    "mammoth": ("retrieval/documents/office.py",),
    "docutils": ("retrieval/documents/office.py",),
    "kiwipiepy": ("retrieval/search/segmenters.py",),
    "pyarrow": ("formats/files/parquet.py",),
    "google": ("inference/gemini",),
    "openai": ("inference/openai/model.py",),
    "torch": (
        "inference/",
        "scoring/",
        "lab/",
        "retrieval/index/sentence_models.py",
        "retrieval/index/vectors.py",
    ),
    "transformers": ("inference/", "scoring/", "lab/"),
    "sqlmodel": ("storage/",),
    "sqlalchemy": ("storage/",),
    "alembic": ("storage/",),
}

MAX_FILE_LINES = 600
MAX_FUNCTION_LINES = 60


def sources() -> Iterator[Path]:
    """Every source file of the packages (tests and benchmarks apart)."""
    for package in sorted(OURS - {"cli"}):
        yield from sorted((ROOT / package).rglob("*.py"))
    yield ROOT / "cli.py"


def imported_roots(tree: ast.AST) -> Iterator[str]:
    """The top-level names a module imports, wherever the import stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module.split(".")[0]


def forbidden_arrows(package: str, roots: Iterator[str]) -> set[str]:
    """Of `roots`, those of our packages that `package` must not import."""
    allowed = MAY_IMPORT.get(package, frozenset()) | {package}
    if package == "cli":
        allowed = OURS
    return {root for root in roots if root in OURS} - allowed


@pytest.mark.parametrize("path", list(sources()), ids=lambda p: str(p.relative_to(ROOT)))
def test_a_file_keeps_the_house_rules(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    relative = path.relative_to(ROOT).as_posix()
    package = relative.split("/")[0].removesuffix(".py")
    roots = list(imported_roots(tree))

    assert not forbidden_arrows(package, iter(roots))
    for library, places in ONLY_IN.items():
        assert library not in roots or relative.startswith(places), f"{library} in {relative}"
    assert text.count("\n") <= MAX_FILE_LINES
    assert ast.get_docstring(tree) or not tree.body, "a module says what it is for"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= MAX_FUNCTION_LINES, f"{node.name} has {length} lines"
            assert node.returns is not None, f"{node.name} says what it returns"
        assert not isinstance(node, ast.Assert), f"line {node.lineno}: assert as input check"
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"line {node.lineno}: bare except"
    if path.name == "__init__.py":
        assert not set(roots) & set(ONLY_IN) - {"sqlmodel", "sqlalchemy", "alembic"}


def test_the_arrow_check_can_fail() -> None:
    tree = ast.parse("def f():\n    from labeling import pipeline\n")
    assert forbidden_arrows("storage", imported_roots(tree)) == {"labeling"}
    assert forbidden_arrows("labeling", imported_roots(tree)) == set()
    assert forbidden_arrows("lab", iter(["commands"])) == {"commands"}
    assert forbidden_arrows("commands", iter(["cli"])) == {"cli"}


def test_traces_is_standard_library_only() -> None:
    for path in (ROOT / "traces").rglob("*.py"):
        foreign = set(imported_roots(ast.parse(path.read_text()))) - {"traces"}
        assert foreign <= sys.stdlib_module_names, path
