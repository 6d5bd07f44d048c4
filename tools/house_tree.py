"""The product's source files, parsed once, and what their names refer to.

Which packages are product is read from `only-include` of the wheel in pyproject.toml, so that a new
package is counted without a change here. Nothing is imported or run.
"""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

Function = ast.FunctionDef | ast.AsyncFunctionDef
Definition = Function | ast.ClassDef


class Finding(NamedTuple):
    """One place that a count is about."""

    path: str
    """Relative to the repository, with slashes."""
    line: int
    """1-based."""
    what: str


class Import(NamedTuple):
    """One module of the product that an import statement names."""

    module: str
    """A name imported from a package is the submodule of that name where there is one."""
    line: int
    """1-based."""
    name: str | None
    """What is taken from the module; None for the module itself."""
    bound: str
    """What the name is called in the importing module."""
    at_load: bool
    """Whether it runs when the importing module is loaded: not in a function or for types only."""


@dataclass(frozen=True)
class Source:
    """One parsed file."""

    path: str
    """Relative to the repository, with slashes."""
    module: str
    """Dotted name; that of the package for an `__init__.py`."""
    text: str
    tree: ast.Module
    stub: ast.Module | None = None
    """The `__init__.pyi` of a face that exports its names lazily."""

    @property
    def is_face(self) -> bool:
        """Whether the file is the `__init__.py` of a package."""
        return self.path.endswith("__init__.py")

    @property
    def package(self) -> str:
        """The dotted name of the package that holds the module; its own for an `__init__.py`."""
        return self.module if self.is_face else self.module.rpartition(".")[0]

    @cached_property
    def lines(self) -> Sequence[str]:
        """The lines of the file without their ends."""
        return self.text.splitlines()

    @cached_property
    def nodes(self) -> Sequence[ast.AST]:
        """Every node of the tree."""
        return list(ast.walk(self.tree))

    @cached_property
    def functions(self) -> Sequence[Function]:
        """All functions, methods and nested ones included."""
        return [node for node in self.nodes if isinstance(node, Function)]

    @cached_property
    def definitions(self) -> Mapping[str, Definition]:
        """Functions and classes by name, methods excluded; the outermost wins."""
        found: dict[str, Definition] = {}
        waiting: list[ast.AST] = [self.tree]
        for node in waiting:
            for child in ast.iter_child_nodes(node):
                if isinstance(child, ast.expr):
                    continue
                waiting.append(child)
                if isinstance(child, Definition) and not isinstance(node, ast.ClassDef):
                    found.setdefault(child.name, child)
        return found

    @cached_property
    def named_modules(self) -> set[str]:
        """Dotted names in strings."""
        return {
            node.value
            for node in self.nodes
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and "." in node.value
        }

    @cached_property
    def assigned(self) -> set[str]:
        """Names that the module gives a value."""
        names = set()
        for node in self.tree.body:
            targets = node.targets if isinstance(node, ast.Assign) else []
            if isinstance(node, ast.AnnAssign):
                targets = [node.target]
            names |= {target.id for target in targets if isinstance(target, ast.Name)}
        return names


@dataclass(frozen=True)
class Product:
    """All files of the product."""

    root: Path
    sources: Mapping[str, Source]
    """By module name."""
    excluded: Sequence[str] = ()
    """Patterns of the wheel's `exclude`."""
    _imports: dict[str, Sequence[Import]] = field(default_factory=dict, repr=False)

    def is_shipped(self, source: Source) -> bool:
        """Whether the wheel carries the file."""
        parts = source.path.split("/")
        above = ["/".join(parts[:n]) for n in range(1, len(parts) + 1)]
        patterns = [p.strip("/").removesuffix("/**") for p in self.excluded]
        return not any(fnmatch(part, pattern) for part in above for pattern in patterns)

    def imports(self, source: Source) -> Sequence[Import]:
        """What a module imports of the product, in functions and for type checkers too.

        A lazy face imports what its stub lists, when it is asked for.
        """
        if source.module not in self._imports:
            self._imports[source.module] = list(self._read_imports(source))
        return self._imports[source.module]

    def _read_imports(self, source: Source) -> Iterator[Import]:
        statements = list(_import_statements(source.tree, at_load=True))
        if source.stub is not None:
            statements += _import_statements(source.stub, at_load=False)
        for node, at_load in statements:
            if isinstance(node, ast.Import):
                for alias in node.names:
                    if alias.name in self.sources:
                        bound = alias.asname or alias.name
                        yield Import(alias.name, node.lineno, None, bound, at_load)
                continue
            origin = _origin(node, source)
            for alias in node.names:
                bound = alias.asname or alias.name
                submodule = f"{origin}.{alias.name}"
                if submodule in self.sources:
                    yield Import(submodule, node.lineno, None, bound, at_load)
                elif origin in self.sources:
                    yield Import(origin, node.lineno, alias.name, bound, at_load)

    def origin(self, module: str, name: str) -> str:
        """The module that a name comes from, looked for through the faces that pass it on."""
        seen: set[str] = set()
        while module not in seen and name not in self.sources[module].definitions:
            seen.add(module)
            passed_on = [one for one in self.imports(self.sources[module]) if one.bound == name]
            if not self.sources[module].is_face or not passed_on:
                break
            module, name = passed_on[0].module, passed_on[0].name or ""
        return module

    def resolve(self, source: Source, node: ast.expr) -> tuple[Source, str] | None:
        """The module and name that `name` or `module.name` means; None if it is not the product's.

        A module itself has the name "".
        """
        if isinstance(node, ast.Attribute):
            base = self.resolve(source, node.value)
            if base is None or base[1]:
                return None
            return self._named(base[0], node.attr)
        if isinstance(node, ast.Name):
            return self._named(source, node.id)
        return None

    def _named(self, source: Source, name: str) -> tuple[Source, str] | None:
        seen: set[tuple[str, str]] = set()
        while name not in source.definitions and (source.module, name) not in seen:
            seen.add((source.module, name))
            found = next((one for one in self.imports(source) if one.bound == name), None)
            if found is None:
                return (source, name) if name in source.assigned else None
            source = self.sources[found.module]
            if found.name is None:
                return source, ""
            name = found.name
        return source, name


def load(root: Path) -> Product:
    """Parse the product of the repository at `root`."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    sources = {}
    for entry in wheel["only-include"]:
        place = root / entry
        for path in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            source = _read(path, root)
            sources[source.module] = source
    return Product(root, sources, tuple(wheel.get("exclude", ())))


def _read(path: Path, root: Path) -> Source:
    relative = path.relative_to(root)
    parts = relative.with_suffix("").parts
    module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    text = path.read_text(encoding="utf-8")
    stub = path.with_suffix(".pyi")
    return Source(
        relative.as_posix(),
        module,
        text,
        ast.parse(text),
        ast.parse(stub.read_text(encoding="utf-8")) if stub.is_file() else None,
    )


def _import_statements(
    node: ast.AST, *, at_load: bool
) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child, at_load
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for part, loaded in ((child.body, False), (child.orelse, at_load)):
                yield from _import_statements(ast.Module(part, []), at_load=loaded)
        elif not isinstance(child, ast.expr):
            inside = isinstance(child, Function)
            yield from _import_statements(child, at_load=at_load and not inside)


def _origin(node: ast.ImportFrom, source: Source) -> str:
    if not node.level:
        return node.module or ""
    parts = source.package.split(".")
    above = parts[: len(parts) - node.level + 1]
    return ".".join([*above, *([node.module] if node.module else [])])


def loaded_libraries(source: Source) -> set[str]:
    """Top-level names of everything imported when the module is loaded."""
    found = set()
    for node, at_load in _import_statements(source.tree, at_load=True):
        if not at_load:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found
