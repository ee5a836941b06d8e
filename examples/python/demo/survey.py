"""The work itself: what one file is. The same as `survey.rs`, finding for finding; a test compares the two."""

from __future__ import annotations

import codecs
import hashlib
import json
import pathlib
from typing import Any

LANGUAGES: dict[str, Any] = json.loads(pathlib.Path(__file__).with_name("languages.json").read_text(encoding="utf-8"))


class UnreadableError(Exception):
    """Why a file cannot be surveyed, today or tomorrow."""


def survey(name: str, content: bytes) -> dict[str, Any]:
    """Surveys one file. What says that it is UTF-16 and is not raises; anything else is taken as UTF-8, where what is none
    counts as one character."""
    if content.startswith(codecs.BOM_UTF16_LE):
        text = utf16(content, "utf-16-le")
    elif content.startswith(codecs.BOM_UTF16_BE):
        text = utf16(content, "utf-16-be")
    else:
        text = content.decode("utf-8", errors="replace")
    lines = lines_of(text)
    return {
        "language": language(name),
        "lines": len(lines),
        "longest_line": max(map(len, lines), default=0),
        "sha256": hashlib.sha256(content).hexdigest(),
    }


def utf16(content: bytes, encoding: str) -> str:
    if len(content) % 2:
        raise UnreadableError(
            f"says it is UTF-16 and ends in the middle of a character, at byte {len(content)}"
        )
    try:
        return content[2:].decode(encoding)
    except UnicodeDecodeError as error:
        raise UnreadableError("says it is UTF-16 and holds half of a surrogate pair") from error


def lines_of(text: str) -> list[str]:
    """Lines end with ``\\n`` or ``\\r\\n``, and with nothing else; a last line without an end counts."""
    lines = text.split("\n")
    last = lines.pop()
    return [line.removesuffix("\r") for line in lines] + ([last] if last else [])


def lower(text: str) -> str:
    """In lower case as far as ASCII goes."""
    return text.encode("utf-8", "surrogatepass").lower().decode("utf-8", "surrogatepass")


NAMES = {lower(name): language for name, language in LANGUAGES["names"].items()}
ENDINGS = {lower(ending): language for ending, language in LANGUAGES["endings"].items()}


def language(name: str) -> str:
    """The language of a file of that name; `Other` when the name says nothing. Names and endings count in any case."""
    name = name.rpartition("/")[2]
    stem, _, ending = name.rpartition(".")
    found = NAMES.get(lower(name)) or (ENDINGS.get(lower(ending)) if stem else None)
    if found:
        return found
    return "Licence" if name.startswith(tuple(LANGUAGES["licences"])) else "Other"


def main() -> None:
    """Surveys files that come as lines of JSON, `{"name": …, "content": hex}`, and prints what becomes of each: for the
    test that compares this with the other survey."""
    import sys

    for line in sys.stdin:
        file = json.loads(line)
        try:
            outcome: dict[str, Any] = {"found": survey(file["name"], bytes.fromhex(file["content"]))}
        except UnreadableError as why:
            outcome = {"unreadable": str(why)}
        print(json.dumps(outcome))


if __name__ == "__main__":
    main()
