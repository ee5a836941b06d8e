#!/usr/bin/env python3
"""Checks that links between the repository's own pages lead somewhere, and that source files which they name are there.

Addresses outside are not asked. A file may be named by the end of its path, with one folder at least: `api/grpc/mod.rs`.
"""

import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
SOURCE = re.compile(r"`([\w.-]+(?:/[\w.-]+)+\.(?:rs|py|sh|proto|yaml|toml))`")


def tracked() -> list[str]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split("\n")
    return [name for name in listed if name and (ROOT / name).is_file()]


def main() -> int:
    broken, count, named = [], 0, 0
    files = tracked()
    ends = {"/".join(parts[n:]) for parts in (name.split("/") for name in files) for n in range(len(parts))}
    for page in (ROOT / name for name in files if name.endswith(".md")):
        code = False
        for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1):
            code ^= line.lstrip().startswith("```")
            if code:
                continue
            for source in SOURCE.findall(line):
                named += 1
                if source not in ends:
                    broken.append(f"{page.relative_to(ROOT)}:{number}: {source} is not there")
            for target in LINK.findall(re.sub(r"`[^`]*`", "", line)):
                if re.match(r"[a-z]+:", target) or target.startswith("#"):
                    continue
                count += 1
                if not (page.parent / target.split("#")[0]).exists():
                    broken.append(f"{page.relative_to(ROOT)}:{number}: {target} is not there")
    print("\n".join(broken) or f"links: {count}, all lead somewhere; {named} source files are named, all are there")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
