"""The findings that the team shares: one context that all workers write to, each change on the revision that it was made
for. The same as `findings.rs`. Merging can be repeated: a finding that is in there already changes nothing."""

from __future__ import annotations

from typing import Any, TypeAlias

import acb_sdk

KEY = "survey/findings"
"""Key of the context; `findings.rs` has the same."""

Numbered: TypeAlias = tuple[int, dict[str, Any]]
"""A finding with the number of its file."""


def add(shared: dict[str, Any], batch: list[Numbered]) -> int:
    """Takes findings into what is shared. Gives how many were new.

    `merged` is a bit for each file's number, the lowest first, in hex; `languages` are files, lines and longest line.
    """
    merged = bytearray.fromhex(shared["merged"])
    languages = shared["languages"]
    new = 0
    for number, finding in batch:
        byte, bit = number // 8, 1 << (number % 8)
        merged.extend(bytes(max(0, byte + 1 - len(merged))))
        if merged[byte] & bit:
            continue
        merged[byte] |= bit
        files, lines, longest = languages.get(finding["language"], (0, 0, 0))
        languages[finding["language"]] = [files + 1, lines + finding["lines"], max(longest, finding["longest_line"])]
        new += 1
    shared["merged"] = merged.hex()
    return new


async def merge(bus: acb_sdk.AsyncClient, batch: list[Numbered]) -> int:
    """Merges findings into the context, however many others do so at the same time. Gives how often somebody was faster,
    so that it was done again on what they left."""
    tries = 0

    def change(context: acb_sdk.Context) -> dict[str, Any] | None:
        nonlocal tries
        tries += 1
        shared: dict[str, Any] = context.json()
        return shared if add(shared, batch) else None

    await bus.contexts.modify(KEY, change)
    return tries - 1
