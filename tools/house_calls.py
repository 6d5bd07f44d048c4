"""Counts about signatures and calls of the product's functions.

A call is resolved by the name it is written with: a function or class of the module, an imported
one, `module.function`, `Class.method`, `self.method` and `super().method` with the base classes,
and methods of parameters, locals and fields of `self` whose class is known by an annotation or a
constructor's call. Other receivers are unknown; their calls are not counted.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from tools.house_tree import Finding, Function, Product, Source

MAX_PARAMETERS = 8
MAX_FUNCTION_LINES = 60
MAX_POSITIONAL = 4


class Call(NamedTuple):
    """A call of a function or class of the product."""

    source: Source
    node: ast.Call
    name: str


def long_functions(product: Product) -> list[Finding]:
    """Functions over the limit of lines, decorators not counted."""
    return [
        Finding(source.path, node.lineno, f"{node.name}: {_length(node)} lines")
        for source in product.sources.values()
        for node in source.functions
        if _length(node) > MAX_FUNCTION_LINES
    ]


def many_parameters(product: Product) -> list[Finding]:
    """Functions outside commands/ with too many parameters, self and cls not counted."""
    return [
        Finding(source.path, node.lineno, f"{node.name}: {len(parameters)} parameters")
        for source in product.sources.values()
        if source.module.split(".")[0] != "commands"
        for node in source.functions
        if len(parameters := _parameters(node)) > MAX_PARAMETERS
    ]


def boolean_parameters(product: Product) -> list[Finding]:
    """Parameters that are booleans by annotation or default and can be given by position.

    Signatures of typer commands and property setters are left out: both are never called with them.
    """
    options = set(_option_aliases(product))
    return [
        Finding(source.path, arg.lineno, f"{node.name}({arg.arg})")
        for source in product.sources.values()
        for node in source.functions
        if not _is_setter(node) and not _is_command(node, source, product, options)
        for arg, default in _positional(node)
        if _is_boolean(arg.annotation) or _is_literal_boolean(default)
    ]


def boolean_arguments(product: Product) -> list[Finding]:
    """Calls of the product's functions that pass a literal True or False by position."""
    return [
        Finding(call.source.path, argument.lineno, f"{call.name}({ast.unparse(argument)})")
        for call in own_calls(product)
        for argument in call.node.args
        if _is_literal_boolean(argument)
    ]


def many_arguments(product: Product) -> list[Finding]:
    """Calls of the product's functions and classes with too many positional arguments.

    An unpacked `*values` counts as one.
    """
    return [
        Finding(call.source.path, call.node.lineno, f"{call.name}: {len(call.node.args)}")
        for call in own_calls(product)
        if len(call.node.args) > MAX_POSITIONAL
    ]


def _length(node: Function) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def _parameters(node: Function) -> list[ast.arg]:
    spec = node.args
    starred = [arg for arg in (spec.vararg, spec.kwarg) if arg is not None]
    plain = [*spec.posonlyargs, *spec.args]
    if plain and plain[0].arg in ("self", "cls"):
        plain = plain[1:]
    return [*plain, *spec.kwonlyargs, *starred]


def _positional(node: Function) -> Iterator[tuple[ast.arg, ast.expr | None]]:
    plain = [*node.args.posonlyargs, *node.args.args]
    missing: list[ast.expr | None] = [None] * (len(plain) - len(node.args.defaults))
    return zip(plain, missing + list(node.args.defaults), strict=True)


def _is_literal_boolean(node: ast.expr | None) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, bool)


def _is_boolean(annotation: ast.expr | None) -> bool:
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        return _is_boolean(ast.parse(annotation.value, mode="eval").body)
    if isinstance(annotation, ast.BinOp):
        return _is_boolean(annotation.left) or _is_boolean(annotation.right)
    if isinstance(annotation, ast.Subscript):
        inside = annotation.slice
        first = inside.elts[0] if isinstance(inside, ast.Tuple) and inside.elts else inside
        wrappers = ("Optional", "Annotated", "typing.Optional", "typing.Annotated")
        return ast.unparse(annotation.value) in wrappers and _is_boolean(first)
    return isinstance(annotation, ast.Name) and annotation.id == "bool"


def _is_setter(node: Function) -> bool:
    return any(isinstance(d, ast.Attribute) and d.attr == "setter" for d in node.decorator_list)


def _mentions_typer(node: ast.AST) -> bool:
    return any(
        isinstance(part, ast.Attribute)
        and part.attr in ("Option", "Argument", "Context")
        and isinstance(part.value, ast.Name)
        and part.value.id == "typer"
        for part in ast.walk(node)
    )


def _option_aliases(product: Product) -> Iterator[tuple[str, str]]:
    """Module and name of the annotations that are written once for several commands."""
    for source in product.sources.values():
        for node in source.tree.body:
            if isinstance(node, ast.Assign) and _mentions_typer(node.value):
                for target in node.targets:
                    yield source.module, ast.unparse(target)


def _is_command(
    node: Function, source: Source, product: Product, options: set[tuple[str, str]]
) -> bool:
    for arg in _parameters(node):
        if arg.annotation is None:
            continue
        if _mentions_typer(arg.annotation):
            return True
        found = product.resolve(source, arg.annotation)
        if found and (found[0].module, found[1]) in options:
            return True
    return False


def own_calls(product: Product) -> Iterator[Call]:
    """All calls that are known to be of a function, method or class of the product."""
    for source in product.sources.values():
        yield from _Calls(product, source).found()


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    """Everything below a function that is no expression."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.expr):
            yield child
            yield from _statements(child)


class _Calls:
    """Walks a module with the classes of `self`, parameters and locals at hand."""

    def __init__(self, product: Product, source: Source) -> None:
        self._product = product
        self._source = source

    def found(self) -> Iterator[Call]:
        yield from self._below(self._source.tree, None, {})

    def _below(
        self, node: ast.AST, owner: ast.ClassDef | None, types: Mapping[str, Owned | None]
    ) -> Iterator[Call]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ClassDef):
                yield from self._below(child, child, types)
            elif isinstance(child, Function):
                inner = dict(types) | self._types(child, owner)
                yield from self._below(child, None, inner)
            else:
                if isinstance(child, ast.Call) and self._is_own(child.func, types):
                    yield Call(self._source, child, ast.unparse(child.func))
                yield from self._below(child, owner, types)

    def _types(self, node: Function, owner: ast.ClassDef | None) -> dict[str, Owned | None]:
        """The class of each parameter, local and field of self; None for an unknown parameter."""
        found: dict[str, Owned | None] = {}
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        for arg in arguments:
            found[arg.arg] = self._typed(arg.annotation)
        if owner is not None and arguments:
            found |= self._fields(owner, arguments[0].arg, is_init=node.name == "__init__")
            found[arguments[0].arg] = Owned(self._source, owner)
        found |= self._locals(node, found)
        return found

    def _fields(self, owner: ast.ClassDef, name: str, *, is_init: bool) -> dict[str, Owned | None]:
        found: dict[str, Owned | None] = {}
        for part in owner.body:
            if isinstance(part, ast.AnnAssign):
                known = self._typed(part.annotation)
                found |= {f"{name}.{ast.unparse(part.target)}": known} if known else {}
            elif isinstance(part, ast.FunctionDef) and part.name == "__init__" and not is_init:
                mine = f"{part.args.args[0].arg}."
                for place, known in self._types(part, owner).items():
                    if place.startswith(mine):
                        found[f"{name}.{place.removeprefix(mine)}"] = known
        return found

    def _locals(self, node: Function, known: Mapping[str, Owned | None]) -> dict[str, Owned | None]:
        found: dict[str, Owned | None] = {}
        for part in _statements(node):
            targets: list[ast.expr]
            if isinstance(part, ast.AnnAssign):
                targets, owned = [part.target], self._typed(part.annotation)
            elif isinstance(part, ast.Assign) and isinstance(part.value, ast.Call):
                targets, owned = part.targets, self._typed(part.value.func)
            elif isinstance(part, ast.Assign) and isinstance(part.value, ast.Name):
                targets, owned = part.targets, known.get(part.value.id)
            else:
                continue
            if owned is not None:
                found |= {ast.unparse(target): owned for target in targets}
        return found

    def _typed(self, written: ast.expr | None) -> Owned | None:
        """The class of the product that is written; `X` for `X | None`."""
        if isinstance(written, ast.BinOp):
            return self._typed(written.left) or self._typed(written.right)
        found = self._product.resolve(self._source, written) if written else None
        definition = found[0].definitions.get(found[1]) if found else None
        if found is None or not isinstance(definition, ast.ClassDef):
            return None
        return Owned(found[0], definition)

    def _is_own(self, called: ast.expr, types: Mapping[str, Owned | None]) -> bool:
        if isinstance(called, ast.Name) and called.id in types:
            return called.id == "cls" and types["cls"] is not None
        if isinstance(called, ast.Attribute):
            receiver = ast.unparse(called.value)
            if receiver == "super()":
                first = types.get("self") or types.get("cls")
                bases = self._bases(first) if first else ()
                return any(self._has_method(base, called.attr) for base in bases)
            owner = types[receiver] if receiver in types else self._typed(called.value)
            if owner is not None or receiver in types:
                return owner is not None and self._has_method(owner, called.attr)
        found = self._product.resolve(self._source, called)
        return found is not None and found[1] in found[0].definitions

    def _has_method(self, owned: Owned, name: str) -> bool:
        if any(isinstance(node, Function) and node.name == name for node in owned.node.body):
            return True
        return any(self._has_method(base, name) for base in self._bases(owned))

    def _bases(self, owned: Owned) -> Iterator[Owned]:
        for base in owned.node.bases:
            found = self._product.resolve(owned.source, base)
            definition = found[0].definitions.get(found[1]) if found else None
            if found and isinstance(definition, ast.ClassDef) and definition is not owned.node:
                yield Owned(found[0], definition)


class Owned(NamedTuple):
    """A class of the product and the file that defines it."""

    source: Source
    node: ast.ClassDef
