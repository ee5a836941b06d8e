#!/usr/bin/env python3
"""Turns llvm-cov's line counts into the figures of docs/coverage.md.

Counted are the lines of the product: not those of tests, not those of what only tests use. A file's lines from its
`#[cfg(test)] mod` on are tests.
"""

import argparse
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent

# What is measured, and the crates in it.
GROUPS = {
    "types": ["types"],
    "core": ["core"],
    "server": ["server/ports", "server/log", "server/engine", "server/store-embedded", "server/bus"],
}

# Inside those: what serves tests only, or was written by a generator.
# Each is the beginning of a path.
LEFT_OUT = {
    "server/ports/src/contract": "suites that stores run in their tests",
    "server/log/src/sim_disk": "the test disk",
    "server/log/src/planted": "planted faults",
    "types/src/error_code/table.rs": "generated",
}


def tests_begin(path: pathlib.Path) -> int:
    """First line of a file's test module; past its end when it has none."""
    lines = path.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, start=1):
        if line.strip() == "#[cfg(test)]" and any(re.match(r"\s*mod \w+ \{", l) for l in lines[number : number + 3]):
            return number
    return len(lines) + 1


def read(lcov: pathlib.Path) -> dict[str, tuple[int, int]]:
    """Lines reached and lines there, per file of the product."""
    out: dict[str, tuple[int, int]] = {}
    name, end = None, 0
    for line in lcov.read_text(encoding="utf-8").splitlines():
        if line.startswith("SF:"):
            path = pathlib.Path(line[3:])
            name = path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else None
            if name and ("/src/" not in name or name.startswith(tuple(LEFT_OUT))):
                name = None
            end = tests_begin(path) if name else 0
        elif line.startswith("DA:") and name:
            number, count = line[3:].split(",")[:2]
            if int(number) < end:
                reached, there = out.get(name, (0, 0))
                out[name] = (reached + (int(count) > 0), there + 1)
    return out


def total(files: dict[str, tuple[int, int]], folders: list[str]) -> tuple[int, int]:
    inside = [v for f, v in files.items() if any(f.startswith(folder + "/") for folder in folders)]
    return sum(r for r, _ in inside), sum(t for _, t in inside)


def percent(reached: int, there: int) -> str:
    # Never rounded up to the bar.
    return f"{int(1000 * reached / there) / 10:.1f} %" if there else "-"


def report(files: dict[str, tuple[int, int]], minimum: float) -> list[str]:
    rustc = subprocess.run(["rustc", "-V"], capture_output=True, text=True, check=True).stdout.split(" (")[0].strip()
    out = [
        "# Coverage",
        "",
        f"Lines of the product that the tests reach, written by `make test-coverage` with {rustc}. The bar is {minimum:g} % for each",
        "of the three parts. Test modules do not count, and neither do:",
        "",
        *(f"- `{path}`: {why}" for path, why in LEFT_OUT.items()),
        "",
        "| part | lines | reached | share |",
        "|---|---:|---:|---:|",
    ]
    for group, folders in GROUPS.items():
        reached, there = total(files, folders)
        if there == 0:
            continue
        out.append(f"| **{group}** | {there} | {reached} | **{percent(reached, there)}** |")
        if len(folders) > 1:
            for folder in folders:
                reached, there = total(files, [folder])
                out.append(f"| {folder} | {there} | {reached} | {percent(reached, there)} |")
    inside = [f for fs in GROUPS.values() for f in fs]
    low = sorted(
        ((r / t, f, r, t) for f, (r, t) in files.items() if t >= 20 and any(f.startswith(i + "/") for i in inside)),
    )[:15]
    out += ["", "## Least covered", "", "| file | lines | reached | share |", "|---|---:|---:|---:|"]
    out += [f"| {f} | {t} | {r} | {percent(r, t)} |" for _, f, r, t in low]
    return out


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("lcov", type=pathlib.Path)
    arguments.add_argument("--minimum", type=float, default=90.0)
    arguments.add_argument("--write", type=pathlib.Path, help="also write the report here, and fail below the minimum")
    given = arguments.parse_args()

    files = read(given.lcov)
    text = "\n".join(report(files, given.minimum)) + "\n"
    print(text)
    if not given.write:
        return 0
    given.write.write_text(text, encoding="utf-8")
    below = []
    for group, folders in GROUPS.items():
        reached, there = total(files, folders)
        if 100 * reached < given.minimum * there or there == 0:
            below.append(f"{group} {percent(reached, there)}")
    if below:
        print(f"coverage: below {given.minimum:g} %: {', '.join(below)}", file=sys.stderr)
        return 1
    print("coverage: every part is above the bar")
    return 0


if __name__ == "__main__":
    sys.exit(main())
