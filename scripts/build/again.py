#!/usr/bin/env python3
"""Says which crates the second build of a new checkout makes again because it asks for other features of them.

    python scripts/build/again.py ["ARGUMENTS OF cargo build" "ARGUMENTS OF cargo test"]

Without arguments the two are the README's commands. Nothing is compiled: cargo's plan of both builds is compared. A crate that is
asked for more features than before is named with them; crates that depend on it follow. To mend it, ask for those features in the
first build too (crates/cli/Cargo.toml).
"""
import json
import os
import subprocess
import sys


def plan(command, arguments):
    arguments = ["cargo", command, "--release", "--unit-graph", "-Zunstable-options", *arguments.split()]
    # The plan is an unstable output, which the stable compiler gives if told so.
    environment = dict(os.environ, RUSTC_BOOTSTRAP="1")
    return json.loads(subprocess.run(arguments, env=environment, check=True, capture_output=True, text=True).stdout)["units"]


def identified(units):
    """Units by everything that decides whether one can serve in place of another, what it depends on included."""
    known = {}

    def identity(index):
        if index not in known:
            unit = units[index]
            own = {key: unit.get(key) for key in ("pkg_id", "target", "profile", "platform", "mode", "features")}
            known[index] = hash((json.dumps(own, sort_keys=True), *sorted(identity(d["index"]) for d in unit["dependencies"])))
        return known[index]

    return {identity(index): unit for index, unit in enumerate(units)}


def main():
    build, test = sys.argv[1:] or ["", "--workspace --features object-store"]
    first, second = identified(plan("build", build)), identified(plan("test", test))
    features = {}
    for unit in first.values():
        features.setdefault(unit["pkg_id"], set()).update(unit["features"])
    again = {}
    for key, unit in second.items():
        if key not in first and unit["pkg_id"] in features:
            again.setdefault(unit["pkg_id"], set()).update(unit["features"])
    print(f"{len(first)} units in the first build, {len(second)} in the second, {len(first.keys() & second.keys())} in both")
    for package in sorted(again):
        more = ", ".join(sorted(again[package] - features[package]))
        print(f"again: {package.split('/')[-1]}" + (f" (features {more})" if more else ""))


if __name__ == "__main__":
    main()
