"""Handlers of the async face. Written by hand beside ``_handlers``: how work runs side by side is what differs."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from ._errors import AcbError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable

    from ._async_subscription import AsyncSubscription
    from ._native import AsyncMessage

logger = logging.getLogger("acb_sdk")


def reason_of(error: BaseException) -> str:
    """An exception as the reason that stands with a dead letter."""
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


async def run_handlers(
    subscription: AsyncSubscription, handler: Callable[[AsyncMessage], Awaitable[Any]], concurrency: int
) -> None:
    """Reads until the subscription is over; finishes what runs."""
    # Not with the package: whoever handles messages has a loop, and so asyncio, already.
    import asyncio

    subscription.keep_leases()
    room = asyncio.Semaphore(max(1, concurrency))
    running: set[asyncio.Task[None]] = set()
    try:
        while True:
            await room.acquire()
            try:
                message = await subscription.next()
            except AcbError as error:
                if error.gap is None:
                    raise
                # Told by the client's events too; those who handle messages go on with what is there.
                logger.warning("%s", error)
                room.release()
                continue
            if message is None:
                break
            task = asyncio.create_task(_handle(message, handler))
            running.add(task)
            task.add_done_callback(running.discard)
            task.add_done_callback(lambda _: room.release())
        await _finish(running)
    except asyncio.CancelledError:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        raise
    except BaseException:
        await _finish(running)
        raise


async def _finish(running: set[asyncio.Task[None]]) -> None:
    import asyncio

    while running:
        await asyncio.wait(set(running))


async def _handle(message: AsyncMessage, handler: Callable[[AsyncMessage], Awaitable[Any]]) -> None:
    # As asyncio, which imports it.
    import inspect

    lease = message.keep_lease()
    try:
        try:
            outcome = handler(message)
            if inspect.isawaitable(outcome):
                await outcome
        except Exception as error:
            logger.debug("a handler failed", exc_info=True)
            if lease.kept:
                await message.nack(reason_of(error))
        else:
            if lease.kept:
                await message.ack()
    except AcbError as error:
        logger.debug("a handled message could not be settled: %s", error)
    finally:
        lease.let_go()
