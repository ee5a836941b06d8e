"""From what people hand in to bytes and a media type."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias, cast

from ._errors import make

Payload: TypeAlias = "bytes | bytearray | memoryview | str | Mapping[str, object] | list[object] | None"
"""What can be sent: bytes as they are, text as UTF-8, mappings and lists as JSON, nothing as nothing."""

TEXT = "text/plain; charset=utf-8"
JSON = "application/json"


def encode(payload: Payload, content_type: str | None = None) -> tuple[bytes, str | None]:
    """Bytes and the media type that goes with them, unless another one is given."""
    if type(payload) is bytes:
        return payload, content_type
    if isinstance(payload, str):
        return payload.encode(), content_type or TEXT
    if isinstance(payload, (bytes, bytearray, memoryview)):
        return bytes(payload), content_type
    if payload is None:
        return b"", content_type
    # Whoever is not typed may hand in anything.
    anything = cast("object", payload)
    if isinstance(anything, (Mapping, list)):
        import json

        try:
            text = json.dumps(payload, ensure_ascii=False, separators=(",", ":"), default=_plain)
        except (TypeError, ValueError) as error:
            raise make("invalid_argument", f"payload is no JSON: {error}", "messages", field="payload") from error
        return text.encode(), content_type or JSON
    name = type(anything).__name__
    text = f"payload takes bytes, str, a mapping or a list, not {name}"
    raise make("invalid_argument", text, "messages", field="payload")


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
    raise TypeError(f"a {type(value).__name__} has no form in JSON")
