"""Finds the English texts of errors in the code, whole, as a reader sees them.

An error is an exception class of the project, or a struct that says what happened (`message`, `reason`). The
search follows what is passed to it: through names, conditions, f-strings and functions of the project, to the
literals. A part that is only known at run time is a fact, written `{}`.
"""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.e2e.harness import ROOT

FACT = "{}"
_MOST = 400
"""The most texts of one expression: above it something is wrong with the search."""

_MANY = 4
_DEPTH = 12
_SAYS = {"message", "reason", "why", "text"}
"""The fields by which a struct is an error."""

_TEXTS = {"message", "reason", "why", "hint", "mend", "problem", "text"}
"""The fields of errors that are texts."""

_LISTS = {"faults", "problems", "parts"}
"""Lists of texts."""

_FORMATTING = {"shown", "toml_key", "shell", "clip", "file_name", "printable"}
"""Functions that write a fact."""

_OF_LIBRARIES = {"reason", "strerror", "filename", "args"}
"""Attributes of errors of the standard library, too."""

_BUILT_IN = {name for kind in (str, bytes, dict, list, set, Path, BaseException) for name in dir(kind)}
"""Methods of which the name says nothing."""

_ADVICE = {"hint", "mend", "why"}
"""Parameters of functions that are texts."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass
class Module:
    """One file."""

    file: Path
    tree: ast.Module
    names: dict[str, list[ast.expr]] = field(default_factory=dict)
    """Constants of the module."""
    imports: dict[str, tuple[str, str]] = field(default_factory=dict)
    """name → the module that it comes from, and its name there."""


@dataclass(frozen=True)
class Scope:
    """Where an expression stands."""

    module: int
    function: Function | None


class Search:
    """The code of some packages.

    Args:
        folders: the packages, below the root of the repository.
    """

    def __init__(self, *folders: str) -> None:
        files = sorted(file for folder in folders for file in (ROOT / folder).rglob("*.py"))
        self.modules = [Module(file, ast.parse(file.read_text(encoding="utf-8"))) for file in files]
        self.numbers = {_dotted(module.file): number for number, module in enumerate(self.modules)}
        self.functions: dict[tuple[int, str], Function] = {}
        self.properties: dict[str, list[tuple[Scope, Function]]] = {}
        self.classes: dict[str, ast.ClassDef] = {}
        self.words: dict[str, tuple[Scope, Function]] = {}
        """class → its `__str__`"""
        self.calls: list[tuple[Scope, ast.Call]] = []
        self.locals: dict[int, dict[str, list[ast.expr]]] = {}
        self.parts: set[str] = set()
        """Texts that are parts of others, and that many are."""
        for number, module in enumerate(self.modules):
            module.names = _assigned(module.tree)
            module.imports = dict(_imports(module.tree))
            self._walk(module.tree, Scope(number, None))
        self.homes: dict[str, list[int]] = {}
        for number, name in self.functions:
            self.homes.setdefault(name, []).append(number)
        self.callers: dict[int, list[tuple[Scope, ast.Call]]] = {}
        for scope, call in self.calls:
            for _, function in self._functions(call, scope):
                self.callers.setdefault(id(function), []).append((scope, call))

    def _walk(self, node: ast.AST, scope: Scope) -> None:
        for child in ast.iter_child_nodes(node):
            inner = scope
            if isinstance(child, Function):
                inner = Scope(scope.module, child)
                self.functions[scope.module, child.name] = child
                self.locals[id(child)] = _assigned(child)
                if child.name == "__str__" and isinstance(node, ast.ClassDef):
                    self.words[node.name] = inner, child
                if any(_name(one) == "property" for one in child.decorator_list):
                    self.properties.setdefault(child.name, []).append((inner, child))
            elif isinstance(child, ast.ClassDef):
                self.classes[child.name] = child
            elif isinstance(child, ast.Call):
                self.calls.append((scope, child))
            self._walk(child, inner)

    def _functions(self, call: ast.Call, scope: Scope) -> list[tuple[Scope, Function]]:
        """Return the functions of the project that may be called; a method by its name, if few have it."""
        imports, name, modules = self.modules[scope.module].imports, _name(call.func), [scope.module]
        match call.func:
            case ast.Name() if name in imports:
                source, name = imports[name]
                modules = [self.numbers.get(source, -1)]
            case ast.Attribute(value=ast.Name(id=prefix)) if prefix in imports:
                modules = [self.numbers.get(".".join(imports[prefix]), -1)]
            case ast.Attribute(value=value) if not isinstance(value, ast.Name) or value.id not in (
                "self",
                "cls",
            ):
                modules = self.homes.get(name, []) if name not in _BUILT_IN else []
        known = [
            (module, self.functions[module, name]) for module in modules if (module, name) in self.functions
        ]
        return [(Scope(module, function), function) for module, function in known] if len(known) == 1 else []

    # -- the errors ----------------------------------------------------------------------------------

    def errors(self) -> set[str]:
        """Return the names of the classes that tell what went wrong."""
        return {
            name for name, node in self.classes.items() if self._raises(name) or _SAYS & _fields(node).keys()
        }

    def _raises(self, name: str) -> bool:
        if name not in self.classes:
            return name in {"Exception", "ValueError", "RuntimeError", "DecodeError", "OSError"}
        return any(self._raises(_name(base)) for base in self.classes[name].bases if _name(base) != name)

    def texts(self, errors: Iterable[str], without: Iterable[str] = ()) -> Iterator[tuple[str, str, str]]:
        """Yield each text of these errors, and each advice that functions get: file, name, text."""
        wanted, passed_over = set(errors), set(without)
        for scope, call in self.calls:
            name, given = _name(call.func), list[ast.expr]()
            if name in wanted:
                given = list(self._arguments(name, call))
            elif name not in passed_over and (found := self._functions(call, scope)):
                given = [value for key, value in _bound(found[0][1], call) if key in _ADVICE]
            elif name == "append" and _name(getattr(call.func, "value", None)) in _LISTS:
                given = call.args
            elif name == "replace":  # of a struct
                given = [keyword.value for keyword in call.keywords if keyword.arg in _TEXTS]
            for argument in given:
                yield from self._prose(argument, name, scope)
        for (module, name), function in self.functions.items():
            if name in _ADVICE:
                for made in (node.value for node in ast.walk(function) if isinstance(node, ast.Return)):
                    yield from self._prose(made, name, Scope(module, function))

    def _prose(self, node: ast.expr | None, name: str, scope: Scope) -> Iterator[tuple[str, str, str]]:
        file = str(self.modules[scope.module].file.relative_to(ROOT))
        self.parts.clear()
        texts = self.read(node, scope)
        yield from ((file, name, text) for text in [*texts, *self.parts] if is_prose(text))

    def _arguments(self, error: str, call: ast.Call) -> Iterator[ast.expr]:
        """Yield the arguments that may be texts: of an exception without a constructor of its own, all."""
        names = self._parameters(error)
        for number, argument in enumerate(call.args):
            if names is None or (number < len(names) and names[number] in _TEXTS):
                yield argument
        yield from (keyword.value for keyword in call.keywords if keyword.arg in _TEXTS)

    def _parameters(self, error: str) -> list[str] | None:
        node = self.classes.get(error)
        if node is None:
            return None
        made = next((one for one in node.body if isinstance(one, Function) and one.name == "__init__"), None)
        if made is not None:
            return [one.arg for one in made.args.args[1:]]
        return self._parameters(_name(node.bases[0])) if self._raises(error) else list(_fields(node))

    # -- the texts of an expression ------------------------------------------------------------------

    def read(self, node: ast.expr | None, scope: Scope, depth: int = 0) -> list[str]:
        """Return all that an expression may be, as far as it is written in the code."""
        found = list(dict.fromkeys(self._read(node, scope, depth))) if depth < _DEPTH else [FACT]
        assert len(found) < _MOST, f"{len(found)} texts of one expression: {found[:3]}"
        return found or [FACT]

    def _read(self, node: ast.expr | None, scope: Scope, depth: int) -> Iterator[str]:
        below = depth + 1
        match node:
            case ast.Constant(value=str(text)):
                yield text
            case ast.JoinedStr(values=values):
                yield from self._joined(values, scope, below)
            case ast.FormattedValue(value=value, conversion=-1, format_spec=None):
                yield from self.read(value, scope, below)
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                yield from self._joined([left, right], scope, below)
            case ast.BinOp(left=ast.Constant(value=str()) | ast.JoinedStr() as left, op=ast.Mult()):
                yield from ("", *self.read(left, scope, below))
            case ast.IfExp(body=one, orelse=other):
                yield from (*self.read(one, scope, below), *self.read(other, scope, below))
            case ast.BoolOp(values=values):
                yield from itertools.chain(*(self.read(value, scope, below) for value in values))
            case ast.NamedExpr(value=value) | ast.Await(value=value):
                yield from self.read(value, scope, below)
            case ast.Name(id=name):
                yield from self._named(name, scope, below)
            case ast.Attribute(attr=name):
                yield from self._attribute(name, below)
            case ast.Subscript(value=ast.Call() as call, slice=ast.Constant(value=int(at))):
                for inner, function in self._functions(call, scope):
                    for made in (one.value for one in ast.walk(function) if isinstance(one, ast.Return)):
                        if isinstance(made, ast.Tuple):
                            yield from self.read(made.elts[at], inner, below)
            case ast.Subscript(value=ast.Name() as value):
                yield from self._values(value.id, scope, below)
            case ast.Call(func=ast.Attribute(value=ast.Constant(value="; "), attr="join"), args=[parts]):
                yield from self.read(parts, scope, below)
            case ast.Call():
                yield from self._called(node, scope, below)
            case ast.List(elts=elements) | ast.Tuple(elts=elements):
                yield from itertools.chain(*(self.read(one, scope, below) for one in elements))
            case ast.Starred(value=value):
                yield from self.read(value, scope, below)
            case _:
                yield FACT

    def _joined(self, parts: list[ast.expr], scope: Scope, depth: int) -> Iterator[str]:
        """Yield a text of several parts. What may be many things is a fact, and a text of its own."""
        said = [self.read(part, scope, depth) for part in parts]
        for many in (options for options in said if len(options) > _MANY):
            self.parts.update(many)
        for made in itertools.product(*(options if len(options) <= _MANY else [FACT] for options in said)):
            yield "".join(made)

    def _named(self, name: str, scope: Scope, depth: int) -> Iterator[str]:
        """Yield what a variable, a parameter or a constant may be."""
        function = scope.function
        if function is not None and name in self.locals[id(function)]:
            for value in self.locals[id(function)][name]:
                yield from self.read(value, scope, depth)
            return
        if function is not None and name in _parameters(function):
            yield from self._passed(function, scope.module, name, depth)
            return
        number, values = self._constant(name, scope)
        for value in values:
            yield from self.read(value, Scope(number, None), depth)

    def _constant(self, name: str, scope: Scope) -> tuple[int, list[ast.expr]]:
        """Return the values of a constant, and the module that it is in."""
        source, name = self.modules[scope.module].imports.get(name, ("", name))
        number = self.numbers.get(source, -1) if source else scope.module
        return number, self.modules[number].names.get(name, []) if number >= 0 else []

    def _passed(self, function: Function, module: int, name: str, depth: int) -> Iterator[str]:
        """Yield what callers pass as a parameter, and its default; of an object with `__str__` its words."""
        arguments = function.args
        kind = next(_name(one.annotation) for one in _all(arguments) if one.arg == name)
        if kind in self.words:
            yield from self._returned(self.words[kind][1], self.words[kind][0], depth)
            return
        positional = [one.arg for one in (*arguments.posonlyargs, *arguments.args)]
        defaults = dict(zip(reversed(positional), reversed(arguments.defaults), strict=False))
        if name in defaults:
            yield from self.read(defaults[name], Scope(module, None), depth)
        for scope, call in self.callers.get(id(function), []):
            for key, value in _bound(function, call):
                if key == name:
                    yield from self.read(value, scope, depth)

    def _attribute(self, name: str, depth: int) -> Iterator[str]:
        """Yield what a property of the project returns."""
        found = self.properties.get(name, []) if name not in _OF_LIBRARIES else []
        for scope, function in found if len(found) == 1 else []:
            yield from self._returned(function, scope, depth)

    def _called(self, call: ast.Call, scope: Scope, depth: int) -> Iterator[str]:
        name = _name(call.func)
        if name in _FORMATTING:
            yield FACT
        elif name in {"str", "told", "in_chinese"} and call.args:
            yield from self.read(call.args[0], scope, depth)
        elif name == "get" and isinstance(call.func, ast.Attribute) and isinstance(call.func.value, ast.Name):
            yield from self._values(call.func.value.id, scope, depth)
            for default in call.args[1:]:
                yield from self.read(default, scope, depth)
        elif name == "format" and isinstance(call.func, ast.Attribute):
            yield from self.read(call.func.value, scope, depth)
        else:
            for inner, function in self._functions(call, scope):
                yield from self._returned(function, inner, depth)

    def _returned(self, function: Function, scope: Scope, depth: int) -> Iterator[str]:
        for node in ast.walk(function):
            if isinstance(node, ast.Return | ast.Yield):
                yield from self.read(node.value, scope, depth)

    def _values(self, name: str, scope: Scope, depth: int) -> Iterator[str]:
        """Yield the values of a table of texts."""
        number, tables = self._constant(name, scope)
        for table in tables:
            for value in table.values if isinstance(table, ast.Dict) else []:
                yield from self.read(value, Scope(number, None), depth)


def literal(node: ast.expr) -> str | None:
    """Return a literal with `{}` for each fact; `None` if it is something else."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else FACT for part in node.values)
    return None


def is_prose(text: str) -> bool:
    """Return whether a text has words of its own, rather than facts or a name."""
    return bool(re.search(r"[A-Za-z]{2,}[.,:;)]* \W*[A-Za-z]", text.replace(FACT, "0")))


def _name(node: ast.expr | None) -> str:
    return getattr(node, "id", getattr(node, "attr", ""))


def _assigned(node: ast.AST) -> dict[str, list[ast.expr]]:
    """Return what the names of a function or module are set to."""
    names: dict[str, list[ast.expr]] = {}
    todo = list(ast.iter_child_nodes(node))
    while todo:
        child = todo.pop(0)
        if isinstance(child, Function | ast.ClassDef | ast.Lambda):
            continue
        todo += ast.iter_child_nodes(child)
        if isinstance(child, ast.Assign):
            for target in child.targets:
                _set(names, target, child.value)
        elif isinstance(child, ast.AnnAssign | ast.NamedExpr) and child.value is not None:
            _set(names, child.target, child.value)
        elif isinstance(child, ast.AugAssign) and isinstance(child.target, ast.Name):
            so_far = names.get(child.target.id, [])
            names[child.target.id] = so_far + [ast.BinOp(one, ast.Add(), child.value) for one in so_far]
    return names


def _set(names: dict[str, list[ast.expr]], target: ast.expr, value: ast.expr) -> None:
    if isinstance(target, ast.Name):
        names.setdefault(target.id, []).append(value)
    elif isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
        for one, its in zip(target.elts, value.elts, strict=True):
            _set(names, one, its)
    elif isinstance(target, ast.Tuple) and isinstance(value, ast.IfExp):
        _set(names, target, value.body)
        _set(names, target, value.orelse)
    elif isinstance(target, ast.Tuple):
        for number, one in enumerate(target.elts):
            _set(names, one, ast.Subscript(value, ast.Constant(number)))


def _parameters(function: Function) -> set[str]:
    return {one.arg for one in _all(function.args)}


def _bound(function: Function, call: ast.Call) -> Iterator[tuple[str, ast.expr]]:
    """Yield the parameter and the value of each argument."""
    names = [one.arg for one in (*function.args.posonlyargs, *function.args.args)]
    yield from zip(names[names[:1] in (["self"], ["cls"]) :], call.args, strict=False)
    yield from ((keyword.arg, keyword.value) for keyword in call.keywords if keyword.arg is not None)


def _all(arguments: ast.arguments) -> list[ast.arg]:
    return [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]


def _dotted(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def _imports(tree: ast.Module) -> Iterator[tuple[str, tuple[str, str]]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            yield from ((one.asname or one.name, (node.module, one.name)) for one in node.names)


def _fields(node: ast.ClassDef) -> dict[str, ast.AnnAssign]:
    """Return the fields of a struct, in order."""
    fields = (one for one in node.body if isinstance(one, ast.AnnAssign))
    return {_name(one.target): one for one in fields}
