"""Checks the modules of every crate: no use of an ancestor's items, no circles.

A circle is a chain of modules `a -> b -> a`, each of which uses the next. A module's children count
as part of the module, so top-level folders form no circle either. A module may use its children,
its siblings (`super::sibling::Item`) and what is below them. Code under `#[cfg(test)]` may use
anything.

This is a script because no tool does this cheaply: `cargo modules dependencies --acyclic` compiles
rust-analyzer, and cargo-cycles skips the workspace's root package. The script reads paths, not
types, so it does not see a use that a macro writes.
"""

import re
import sys
import tomllib
from collections.abc import Iterator, Set
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from dev import ROOT

Module = tuple[str, ...]  # names from the crate's root, whose own is ()

NOT_CODE = re.compile(
    r"""
    //[^\n]* | /\*.*?\*/                # comments
    | \bb?r(\#*)".*?"\1                 # raw strings
    | "(?:\\.|[^"\\])*"                 # strings
    | '(?:\\.[^']*|[^'\\\n])'           # characters, but not lifetimes
    """,
    re.DOTALL | re.VERBOSE,
)
USE = re.compile(r"\buse\s+([^;]*);")
USE_TOKEN = re.compile(r"\bas\s+\w+|\w+|[{},*]")
PATH = re.compile(r"(?<![\w:$])\w+(?:\s*::\s*\w+)+")
VISIBILITY = re.compile(r"\bpub\s*\([^)]*\)")
TEST_ITEM = re.compile(r"#\[cfg\(test\)\][^;{]*[;{]")
MODULE_FILE = re.compile(r"\bmod\s+(\w+)\s*;")
INLINE_MODULE = re.compile(r"\bmod\s+(\w+)\s*\{")


@dataclass(frozen=True)
class Use:
    """A path in the source of one module that leads to another module."""

    place: str
    source: Module
    target: Module
    item: str


def findings(root: Path) -> list[str]:
    """Check the crate whose root module is this file; return one line for each violation."""
    uses = list(find_uses(find_modules(root)))
    of_ancestors = [
        f"{use.place}: {name(use.source)} uses {use.item} of its ancestor {name(use.target)}"
        for use in uses
        if is_ancestor(use.target, use.source)
    ]
    return of_ancestors + find_circles(uses)


def find_modules(root: Path) -> dict[Module, tuple[Path, str]]:
    """Follow the `mod` declarations; return the file of each module and its code."""
    modules = {}
    pending = [((), root, root.parent)]
    while pending:
        module, file, folder = pending.pop()
        code = without_tests(NOT_CODE.sub(blank, file.read_text()))
        modules[module] = file, code
        for child in MODULE_FILE.findall(code):
            files = [folder / f"{child}.rs", folder / child / "mod.rs"]
            file_of_child = next((file for file in files if file.exists()), None)
            if file_of_child is None:
                raise SystemExit(f"{file}: the file of module {child} was not found")
            pending.append(((*module, child), file_of_child, folder / child))
    return modules


def find_uses(modules: dict[Module, tuple[Path, str]]) -> Iterator[Use]:
    """Resolve the paths in all modules, and return those that lead to another module."""
    for module, (file, code) in sorted(modules.items()):
        inline = [
            (match.end(), end_of_block(code, match.end()), match[1])
            for match in INLINE_MODULE.finditer(code)
        ]
        for offset, path in find_paths(code):
            inside = tuple(name for start, end, name in inline if start <= offset < end)
            target, item = resolve(path, module + inside, modules.keys())
            if target != module:
                line = code.count("\n", 0, offset) + 1
                yield Use(f"{file}:{line}", module, target, item)


def find_paths(code: str) -> Iterator[tuple[int, list[str]]]:
    """Return the position and the segments of each path, in `use` declarations and elsewhere."""
    code = VISIBILITY.sub(blank, code)
    for declaration in USE.finditer(code):
        yield from find_used_paths(code, declaration)
    for match in PATH.finditer(USE.sub(blank, code)):
        yield match.start(), re.findall(r"\w+", match[0])


def find_used_paths(code: str, declaration: re.Match[str]) -> Iterator[tuple[int, list[str]]]:
    """Expand `use a::{b, c::{d, e}};` to a::b, a::c::d and a::c::e."""
    prefixes: list[list[str]] = [[]]
    path: list[str] = []
    offset = declaration.start(1)
    for token in USE_TOKEN.finditer(code, *declaration.span(1)):
        if token[0] == "{":
            prefixes.append(path)
        elif token[0] in {",", "}"}:
            if path != prefixes[-1]:
                yield offset, path
            if token[0] == "}":
                prefixes.pop()
            path = prefixes[-1]
        elif not token[0].startswith("as "):
            path = [*path, token[0]]
            offset = token.start()
    if path:
        yield offset, path


def resolve(path: list[str], module: Module, modules: Set[Module]) -> tuple[Module, str]:
    """Find the module that a path leads to, and the item used.

    A path to another crate, or to an item of this module, leads to this module.
    """
    target, rest = module, list(path)
    if rest[0] == "crate":
        target, rest = (), rest[1:]
    elif rest[0] in {"self", "super"}:
        while rest and rest[0] in {"self", "super"}:
            target = target[:-1] if rest.pop(0) == "super" else target
    while rest and (*target, rest[0]) in modules:
        target = *target, rest.pop(0)
    while target not in modules:  # an inline module belongs to the module of its file
        target = target[:-1]
    return target, rest[0] if rest else "self"


def find_circles(uses: list[Use]) -> list[str]:
    """Describe the shortest circle through each use that is part of a circle."""
    graph: dict[Module, dict[Module, Use]] = {}
    for use in uses:
        if not (is_ancestor(use.source, use.target) or is_ancestor(use.target, use.source)):
            source, target = siblings(use)
            graph.setdefault(source, {}).setdefault(target, use)
    circles = {}
    for source, targets in graph.items():
        for target in targets:
            if way := shortest_way(graph, target, source):
                circle = [source, *way]
                circles.setdefault(frozenset(circle), circle)
    return [describe(graph, circle) for circle in circles.values()]


def siblings(use: Use) -> tuple[Module, Module]:
    """Return the two modules with the same parent that hold the source and the target of a use."""
    pairs = enumerate(zip(use.source, use.target, strict=False), start=1)
    depth = next(depth for depth, (source, target) in pairs if source != target)
    return use.source[:depth], use.target[:depth]


def shortest_way(
    graph: dict[Module, dict[Module, Use]], start: Module, goal: Module
) -> list[Module] | None:
    """Search breadth-first; both ends are part of the way."""
    ways = [[start]]
    reached = {start}
    for way in ways:
        if way[-1] == goal:
            return way
        new = [target for target in graph.get(way[-1], {}) if target not in reached]
        reached.update(new)
        ways.extend([*way, target] for target in new)
    return None


def describe(graph: dict[Module, dict[Module, Use]], circle: list[Module]) -> str:
    """Write a circle as a chain, with the places where each module uses the next."""
    first, *others = [graph[source][target].place for source, target in pairwise(circle)]
    return f"{first}: circle {' -> '.join(map(name, circle))}, see also {', '.join(others)}"


def without_tests(code: str) -> str:
    """Blank the items under `#[cfg(test)]`."""
    while match := TEST_ITEM.search(code):
        end = end_of_block(code, match.end()) if match[0].endswith("{") else match.end()
        code = code[: match.start()] + blank(code[match.start() : end]) + code[end:]
    return code


def end_of_block(code: str, start: int) -> int:
    """Find the end of the block whose opening brace stands before `start`."""
    depth = 1
    for brace in re.compile(r"[{}]").finditer(code, start):
        depth += 1 if brace[0] == "{" else -1
        if depth == 0:
            return brace.end()
    return len(code)


def blank(text: str | re.Match[str]) -> str:
    """Replace all but the line ends, so that lines and positions stay."""
    return re.sub(r"[^\n]", " ", text if isinstance(text, str) else text[0])


def is_ancestor(module: Module, other: Module) -> bool:
    """Tell whether the first module is the parent of the other, the parent's parent and so on."""
    return len(module) < len(other) and other[: len(module)] == module


def name(module: Module) -> str:
    """Write a module as in a path."""
    return "::".join(module) or "crate"


def crate_roots(workspace: Path) -> list[Path]:
    """Find the root modules of the libraries and programs of all members."""
    manifest = tomllib.loads((workspace / "Cargo.toml").read_text())
    members = [found for glob in manifest["workspace"]["members"] for found in workspace.glob(glob)]
    patterns = "src/lib.rs", "src/main.rs", "src/bin/*.rs", "src/bin/*/main.rs"
    return [
        root
        for package in [workspace, *sorted(members)]
        for pattern in patterns
        for root in sorted(package.glob(pattern))
    ]


def main() -> int:
    """Print what was found in the workspace."""
    found = [finding for root in crate_roots(ROOT) for finding in findings(root)]
    for finding in found:
        print(finding.replace(f"{ROOT}/", ""))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
