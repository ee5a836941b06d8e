"""Handlers of the sync face: threads. Written by hand beside ``_async_handlers``."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any

from ._async_handlers import reason_of
from ._errors import AcbError

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from ._native import Message
    from ._subscription import Subscription

logger = logging.getLogger("acb_sdk")


def run_handlers(subscription: Subscription, handler: Callable[[Message], Any], concurrency: int) -> None:
    """Reads until the subscription is over; finishes what runs. With ``concurrency`` 1 handlers run on this thread."""
    subscription.keep_leases()
    if concurrency <= 1:
        for message in _messages(subscription):
            _handle(message, handler)
        return

    from concurrent.futures import ThreadPoolExecutor

    room = threading.Semaphore(concurrency)

    def done(_: Future[None]) -> None:
        room.release()

    with ThreadPoolExecutor(concurrency, thread_name_prefix="acb-handler") as pool:
        for message in _messages(subscription):
            room.acquire()
            pool.submit(_handle, message, handler).add_done_callback(done)


def _messages(subscription: Subscription) -> Any:
    while True:
        try:
            message = subscription.next()
        except AcbError as error:
            if error.gap is None:
                raise
            logger.warning("%s", error)
            continue
        if message is None:
            return
        yield message


def _handle(message: Message, handler: Callable[[Message], Any]) -> None:
    lease = message.keep_lease()
    try:
        try:
            handler(message)
        except Exception as error:
            logger.debug("a handler failed", exc_info=True)
            if lease.kept:
                message.nack(reason_of(error))
        else:
            if lease.kept:
                message.ack()
    except AcbError as error:
        logger.debug("a handled message could not be settled: %s", error)
    finally:
        lease.let_go()
