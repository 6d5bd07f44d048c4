"""Counts about files and the imports between them."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import fnmatch

from tools.house_tree import Finding, Product, Source, loaded_libraries

MAX_FILE_LINES = 600
MAX_LINE_LENGTH = 100

PLUG_INS: Mapping[str, Sequence[str]] = {
    "a file format": ("formats/field/*.py", "formats/files/parquet.py"),
    "a document format": (
        "retrieval/documents/office.py",
        "retrieval/documents/pdf.py",
        "retrieval/documents/rows.py",
    ),
    "a PRM family": ("scoring/families/*.py",),
    "an evaluation protocol": ("evaluation/protocols/*.py",),
    "a migration": ("storage/migrations/versions/*.py",),
}
"""Files that one registry reads, by what each of them adds to it."""

ENTRY_POINTS = (
    "cli.py",
    "*/__init__.py",
    "*/__main__.py",
    "lab/training/*",
)
"""Files that a person or an installed script starts; so are the files of COMMAND_READERS."""

COMMAND_READERS = frozenset({"cli", "commands.table"})
"""A file that only one of these reads is a command, or the table of commands."""

HEAVY = frozenset(
    {
        "bm25s",
        "docutils",
        "faiss",
        "fastapi",
        "google",
        "psycopg",
        "kiwipiepy",
        "mammoth",
        "openai",
        "pyarrow",
        "pydicom",
        "pypdfium2",
        "ray",
        "scipy",
        "sentence_transformers",
        "sklearn",
        "starlette",
        "torch",
        "transformers",
        "uvicorn",
    }
)
"""Libraries that take long to import or that not everyone has installed."""


def files(product: Product) -> list[Finding]:
    """All files, with their lengths, longest first."""
    found = [Finding(s.path, len(s.lines), "lines") for s in product.sources.values()]
    return sorted(found, key=lambda one: (-one.line, one.path))


def long_files(product: Product) -> list[Finding]:
    """Files over the limit of lines, longest first."""
    return [one for one in files(product) if one.line > MAX_FILE_LINES]


def shipped_files(product: Product) -> list[Finding]:
    """Python files that the wheel carries, with their lengths, longest first."""
    shipped = {s.path for s in product.sources.values() if product.is_shipped(s)}
    return [one for one in files(product) if one.path in shipped]


def long_lines(product: Product) -> list[Finding]:
    """Lines with more characters than the limit."""
    return [
        Finding(source.path, number, f"{len(line)} characters")
        for source in product.sources.values()
        for number, line in enumerate(source.lines, start=1)
        if len(line) > MAX_LINE_LENGTH
    ]


def edges(product: Product) -> list[Finding]:
    """Distinct pairs of an importing and an imported module.

    All imports count, also those in functions and for type checkers. `from a import b` leads to
    `a.b` where that is a module and to `a` otherwise, so a name taken from a package's face is an
    edge to the face alone. Packages above an imported module are not counted.
    """
    return list(_edges(product, keep=lambda _source, _target: True))


def _edges(product: Product, *, keep: Callable[[Source, Source], bool]) -> Iterator[Finding]:
    for source in product.sources.values():
        seen: set[str] = set()
        for one in product.imports(source):
            target = product.sources[one.module]
            if one.module not in seen and keep(source, target):
                seen.add(one.module)
                yield Finding(source.path, one.line, f"{source.module} -> {one.module}")


def past_faces(product: Product) -> list[Finding]:
    """Edges into a module of another top-level package that pass by the `__init__` of a package."""
    return list(
        _edges(
            product,
            keep=lambda source, target: (
                not target.is_face and _top(target.module) != _top(source.module)
            ),
        )
    )


def private_imports(product: Product) -> list[Finding]:
    """Edges into a module named `_name` from outside the package that holds it."""
    return list(_edges(product, keep=lambda source, target: _is_private_to(target, source)))


def _is_private_to(target: Source, source: Source) -> bool:
    parts = target.module.split(".")
    for place, part in enumerate(parts):
        owner = ".".join(parts[:place])
        if part.startswith("_") and not f"{source.package}.".startswith(f"{owner}."):
            return True
    return False


def _top(module: str) -> str:
    return module.split(".")[0]


def readers(product: Product) -> Mapping[str, set[str]]:
    """For each module, the modules that read it directly or through a face that exports it.

    A face only exports names, so it is not a reader. A module that is named in a string, as in a
    table for `import_module`, is read by the file with that string.
    """
    found: dict[str, set[str]] = {module: set() for module in product.sources}
    for source in product.sources.values():
        if source.is_face:
            continue
        for one in product.imports(source):
            origin = product.origin(one.module, one.name) if one.name else one.module
            found[origin].add(source.module)
        for module in source.named_modules & product.sources.keys():
            found[module].add(source.module)
    return {module: names - {module} for module, names in found.items()}


def single_readers(product: Product) -> list[Finding]:
    """Files with one reader that are no plug-in, no entry point and guard no heavy import."""
    found = []
    for module, names in readers(product).items():
        source = product.sources[module]
        if len(names) != 1 or _is_exempt(source.path):
            continue
        reader = product.sources[next(iter(names))]
        is_command = reader.module in COMMAND_READERS
        guarded = HEAVY & loaded_libraries(source) and not HEAVY & loaded_libraries(reader)
        if not is_command and not guarded:
            found.append(Finding(source.path, 1, f"read by {reader.module} only"))
    return found


def unread(product: Product) -> list[Finding]:
    """Files that no module reads, entry points and plug-ins excluded."""
    return [
        Finding(product.sources[module].path, 1, "no reader")
        for module, names in readers(product).items()
        if not names and not _is_exempt(product.sources[module].path)
    ]


def _patterns() -> Iterator[str]:
    for patterns in PLUG_INS.values():
        yield from patterns
    yield from ENTRY_POINTS


def _is_exempt(path: str) -> bool:
    return any(fnmatch(path, pattern) for pattern in _patterns())


def stale_plug_ins(product: Product) -> list[Finding]:
    """Entries of the table of plug-ins that no file matches any more."""
    paths = [source.path for source in product.sources.values()]
    return [
        Finding("tools/house_modules.py", 1, f"'{pattern}' matches no file")
        for patterns in PLUG_INS.values()
        for pattern in patterns
        if not any(fnmatch(path, pattern) for path in paths)
    ]


def duplicate_classes(product: Product) -> list[Finding]:
    """Names of top-level classes that are defined in more than one place."""
    places: dict[str, list[Finding]] = defaultdict(list)
    for source in product.sources.values():
        for node in source.tree.body:
            if isinstance(node, ast.ClassDef):
                places[node.name].append(Finding(source.path, node.lineno, node.name))
    return [
        Finding(found[0].path, found[0].line, f"{name}, also {_listed(found[1:])}")
        for name, found in sorted(places.items())
        if len(found) > 1
    ]


def _listed(places: Sequence[Finding]) -> str:
    return ", ".join(f"{one.path}:{one.line}" for one in places)


def cycles(product: Product) -> list[Finding]:
    """Groups of modules that import each other while they are loaded.

    Imports in functions and those for type checkers are left out, and so are the packages above an
    imported module, which Python loads first.
    """
    loads = {
        module: sorted({one.module for one in product.imports(source) if one.at_load} - {module})
        for module, source in product.sources.items()
    }
    found = [group for group in _strongly_connected(loads) if len(group) > 1]
    return [
        Finding(product.sources[group[0]].path, 1, " <-> ".join(group)) for group in sorted(found)
    ]


def _strongly_connected(arrows: Mapping[str, Sequence[str]]) -> Iterator[list[str]]:
    """Kosaraju's algorithm: finish times forwards, then the groups along reversed arrows."""
    reversed_arrows: dict[str, list[str]] = {name: [] for name in arrows}
    for name, targets in arrows.items():
        for target in targets:
            reversed_arrows[target].append(name)
    finished: list[str] = []
    seen: set[str] = set()
    for name in arrows:
        finished += _postorder(name, arrows, seen)
    seen = set()
    for name in reversed(finished):
        group = _postorder(name, reversed_arrows, seen)
        if group:
            yield sorted(group)


def _postorder(start: str, arrows: Mapping[str, Sequence[str]], seen: set[str]) -> list[str]:
    """Names reached from `start` that are not in `seen`, each after those it leads to."""
    found: list[str] = []
    if start in seen:
        return found
    seen.add(start)
    stack = [(start, iter(arrows[start]))]
    while stack:
        name, targets = stack[-1]
        fresh = next((target for target in targets if target not in seen), None)
        if fresh is None:
            found.append(name)
            stack.pop()
        else:
            seen.add(fresh)
            stack.append((fresh, iter(arrows[fresh])))
    return found
