"""The house rules that a machine can hold: arrows, heavy libraries, sizes, forbidden habits."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from functools import cache
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
    # Generative PRMs are asked and read by the engine of the judge.
    "scoring": frozenset({"traces", "retrieval", "inference", "judge"}),
    "training": frozenset({"traces", "scoring"}),
    "lab": frozenset(
        {"traces", "formats", "retrieval", "inference", "labeling", "scoring", "evaluation"}
    ),
}
MAY_IMPORT["stepgold"] = frozenset(MAY_IMPORT)
MAY_IMPORT["review"] = frozenset({"traces", "stepgold", "storage", "formats"})
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
    "kiwipiepy": ("retrieval/search/bm25.py",),
    "pyarrow": ("formats/files/parquet.py",),
    "google": ("inference/gemini",),
    "openai": ("inference/openai/model.py", "inference/openai/batch.py"),
    "torch": (
        "inference/",
        "scoring/",
        "training/",
        "lab/",
        "retrieval/index/sentence_models.py",
        "retrieval/index/vectors.py",
    ),
    "transformers": ("inference/", "scoring/", "training/", "lab/"),
    "sqlmodel": ("storage/",),
    "sqlalchemy": ("storage/",),
    "alembic": ("storage/",),
    "fastapi": ("review/",),
    "uvicorn": ("review/server.py",),
}

PAST_FACES = frozenset(
    {
        # Faces that are no `__init__.py`: text, plug-ins, and what commands are generated from.
        ("*", "traces.words"),
        ("*", "traces.plugins"),
        ("commands.build", "traces.config"),
        ("stepgold.config_run", "traces.config"),
        # Commands are built from the application layer, whose face is the Python API.
        ("commands", "stepgold"),
        ("review", "stepgold"),
        ("cli", "stepgold"),
        ("cli", "commands"),
        # Too generic a name to be exported.
        ("stepgold.doctor", "retrieval.index.files"),
    }
)
"""Imports that may go past a package's face: importing module or package, imported one."""

MAX_FILE_LINES = 600
MAX_FUNCTION_LINES = 60


def sources() -> Iterator[Path]:
    """Every source file of the packages, without tests and benchmarks."""
    for package in sorted(OURS - {"cli"}):
        yield from sorted((ROOT / package).rglob("*.py"))
    yield ROOT / "cli.py"


def imported_roots(tree: ast.AST) -> Iterator[str]:
    """The top-level names that a module imports, also in functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module.split(".")[0]


def module_name(path: Path) -> str:
    """The dotted name of a source file."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_modules(tree: ast.AST) -> Iterator[str]:
    """Our modules that a module imports by their full names, also in functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            modules = [name for name in names if is_module(name)]
            yield from modules
            if len(modules) < len(names):
                yield node.module


@cache
def is_module(name: str) -> bool:
    """Whether the name is one of our files, not a package."""
    return (ROOT / name.replace(".", "/")).with_suffix(".py").is_file()


def inner_imports(source: str, tree: ast.AST) -> Iterator[str]:
    """Modules inside other packages that `source` imports past the packages' faces."""
    for name in imported_modules(tree):
        top = name.split(".")[0]
        if top in OURS and top not in (name, source.split(".")[0]) and is_module(name):
            yield name


def around(module: str) -> set[str]:
    """The names by which PAST_FACES may name a module."""
    return {module, module.split(".")[0], "*"}


def past_faces(source: str, tree: ast.AST) -> Iterator[str]:
    """Inner imports of `source` that PAST_FACES does not allow."""
    for name in inner_imports(source, tree):
        pairs = {(one, other) for one in around(source) for other in around(name)}
        if pairs.isdisjoint(PAST_FACES):
            yield name


def private_imports(source: str, tree: ast.AST) -> Iterator[str]:
    """Modules named `_name` of other packages that `source` imports."""
    for name in imported_modules(tree):
        owner, private, _ = name.partition("._")
        if private and not f"{source}.".startswith(f"{owner}.") and owner.split(".")[0] in OURS:
            yield name


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
    assert list(past_faces(module_name(path), tree)) == []
    assert list(private_imports(module_name(path), tree)) == []
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


def test_the_face_check_can_fail() -> None:
    inside = (
        "from labeling.pipeline import x\nfrom storage import labels, Store\nimport lab.build\n"
    )
    found = list(past_faces("stepgold.again", ast.parse(inside)))
    assert found == ["labeling.pipeline", "storage.labels", "lab.build"]
    assert list(past_faces("labeling.stages", ast.parse("import labeling.pipeline\n"))) == []
    assert (
        list(past_faces("stepgold.again", ast.parse("from retrieval.documents import x\n"))) == []
    )
    assert list(past_faces("commands.plan", ast.parse("from stepgold.again import x\n"))) == []
    private = ast.parse("from labeling._inside import x\n")
    assert list(private_imports("labeling.stages", private)) == []
    assert list(private_imports("lab.build", private)) == ["labeling._inside"]


@pytest.mark.slow
def test_every_exception_is_needed() -> None:
    found = {
        (source, target)
        for path in sources()
        for source in around(module_name(path))
        for imported in inner_imports(module_name(path), ast.parse(path.read_text()))
        for target in around(imported)
    }
    assert found >= PAST_FACES


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


LOADERS = frozenset({"CrossEncoder", "SentenceTransformer", "from_pretrained"})


def loads_code(tree: ast.AST) -> Iterator[int]:
    """Lines that load a checkpoint and may run, or ask whether to run, the code that it brings."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = node.func
        name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
        given = {word.arg: word.value for word in node.keywords}
        trusted = given.get("trust_remote_code")
        automatic = name != "from_pretrained" or "Auto" in ast.unparse(called)
        off = isinstance(trusted, ast.Constant) and trusted.value is False
        if ((name in LOADERS and automatic) or trusted is not None) and not off:
            yield node.lineno


def test_nothing_trusts_the_code_of_a_checkpoint() -> None:
    parts = (*OURS, "benchmarks", "examples")
    files = [ROOT / "cli.py", *(file for part in parts for file in (ROOT / part).rglob("*.py"))]
    found = [
        f"{file.relative_to(ROOT)}:{line}"
        for file in files
        for line in loads_code(ast.parse(file.read_text(encoding="utf-8")))
    ]
    assert not found
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    assert not [page.name for page in pages if "trust_remote_code=True" in page.read_text("utf-8")]
    assert list(loads_code(ast.parse("AutoModel.from_pretrained('x')"))) == [1]
    assert list(loads_code(ast.parse("f(x, trust_remote_code=True)"))) == [1]
