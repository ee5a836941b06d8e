"""Answering requests: a handler whose return value is the reply. Written by hand beside ``_async_serve``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._native import Message
    from ._subscription import Subscription


def serve_requests(source: Subscription, handler: Callable[[Message], Any], concurrency: int) -> None:
    """Handles messages and sends what the handler gives to those who asked."""

    def answer(message: Message) -> None:
        result = handler(message)
        if message.reply_to is not None:
            message.reply(result)

    source.for_each(answer, concurrency=concurrency)
