#!/usr/bin/env python3
"""Rooms and circles: for each crate its files, its lines, and the groups of files that depend on each other in a circle.

A file depends on another if it names one of its items, by a `use` or a path; a name that a module passes on counts for the file that
defines it. Tests at the end of a file do not count. Ends with an error if there is a circle.

  scripts/circles.py [CRATE]...
"""
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent / "crates"


def flatten(tree, prefix=()):
    """The paths of a `use` tree: `a::{b, c::d as e}` is a::b and a::c::d (known as e)."""
    tree = tree.strip()
    if "{" in tree:
        head, inner = tree.split("{", 1)
        prefix = prefix + tuple(part for part in head.split("::") if part.strip())
        depth, start, inner = 0, 0, inner[:-1]
        for i, c in enumerate(inner + ","):
            depth += (c == "{") - (c == "}")
            if c == "," and depth == 0:
                if inner[start:i].strip():
                    yield from flatten(inner[start:i], prefix)
                start = i + 1
        return
    path, _, alias = tree.partition(" as ")
    parts = prefix + tuple(part.strip() for part in path.split("::"))
    if parts[-1] == "self":
        parts = parts[:-1]
    yield parts, alias.strip() or parts[-1]


def read(crate):
    """Module path -> (file, what it imports or passes on, what it names) of a crate."""
    source, modules = ROOT / crate / "src", {}
    for file in sorted(source.rglob("*.rs")):
        path = file.relative_to(source).with_suffix("").parts
        if path in (("main",), ("lib",)):
            path = ()
        if path and path[-1] == "mod":
            path = path[:-1]
        text = re.sub(r"//.*", "", file.read_text())
        text = re.split(r"#\[cfg\(test\)\]\s*(?:pub\(\w+\) )?mod \w+ \{", text)[0]
        uses = [use for tree in re.findall(r"^\s*(?:pub(?:\([\w ]+\))? )?use\s+([^;]+);", text, re.M)
                for use in flatten(re.sub(r"\s+", " ", tree))]
        rest = re.sub(r"\buse\s+[^;]+;", "", text)
        paths = [tuple(p.split("::")) for p in re.findall(r"\b(?:crate|super|self)(?:::\w+)+", rest)]
        paths += [tuple(p.split("::")) for p in re.findall(r"(?<![\w:])[a-z]\w*(?:::\w+)+", rest)]
        words = set(re.findall(r"\w+", rest))
        modules[path] = (file, uses, paths + [use for use, name in uses if name in words or name == "*"])
    return modules


def absolute(modules, module, path):
    """`path`, as written in `module`, from the root of the crate; `None` if it leads elsewhere."""
    if path[0] == "crate":
        return path[1:]
    if path[0] in ("super", "self"):
        up = 0
        while up < len(path) and path[up] == "super":
            up += 1
        return module[: len(module) - up] + path[max(up, path[0] == "self"):]
    return module + path if module + path[:1] in modules else None


def target(modules, path, seen=()):
    """The module that defines what is at the absolute `path`."""
    depth = max(n for n in range(len(path) + 1) if path[:n] in modules)
    module, rest = path[:depth], path[depth:]
    if not rest:
        return module
    for use, name in modules[module][1]:
        found = absolute(modules, module, use)
        if name == rest[0] and found is not None and (module, name) not in seen:
            return target(modules, found + rest[1:], seen + ((module, name),))
    return module


def circles(edges):
    """Strongly connected components of more than one node (Tarjan)."""
    index, low, stack, found = {}, {}, [], []

    def visit(v):
        index[v] = low[v] = len(index)
        stack.append(v)
        for w in edges[v]:
            if w not in index:
                visit(w)
                low[v] = min(low[v], low[w])
            elif w in stack:
                low[v] = min(low[v], index[w])
        if low[v] == index[v]:
            group = []
            while not group or group[-1] != v:
                group.append(stack.pop())
            found.append(group)

    for v in edges:
        if v not in index:
            visit(v)
    return [sorted(group) for group in found if len(group) > 1]


any_circle = False
for crate in sys.argv[1:] or sorted(p.parent.name for p in ROOT.glob("*/Cargo.toml")):
    modules = read(crate)
    edges = {}
    for module, (_, _, paths) in modules.items():
        named = [absolute(modules, module, path) for path in paths]
        edges[module] = {target(modules, path) for path in named if path is not None} - {module}
    lines = sum(len(file.read_text().splitlines()) for file, _, _ in modules.values())
    print(f"{crate}: {len(modules)} files, {lines} lines")
    for group in circles(edges):
        any_circle = True
        print(f"  a circle of {len(group)}: " + ", ".join("::".join(module) or "(root)" for module in group))
        for module in group:
            inside = sorted("::".join(other) or "(root)" for other in edges[module] if other in group)
            print(f"    {'::'.join(module) or '(root)'} -> {', '.join(inside)}")
sys.exit(any_circle)
