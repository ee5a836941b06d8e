"""Answering requests: a handler whose return value is the reply."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ._async_subscription import AsyncSubscription
    from ._native import AsyncMessage


async def serve_requests(
    source: AsyncSubscription, handler: Callable[[AsyncMessage], Awaitable[Any] | Any], concurrency: int
) -> None:
    """Handles messages and sends what the handler gives to those who asked."""
    # Not with the package: asyncio has imported it for whoever has a loop.
    import inspect

    async def answer(message: AsyncMessage) -> None:
        result = handler(message)
        if inspect.isawaitable(result):
            result = await result
        if message.reply_to is not None:
            await message.reply(result)

    await source.for_each(answer, concurrency=concurrency)
