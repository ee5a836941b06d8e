"""A bus for the tests of your agents: in process, without a server, a port or a file; there in milliseconds; its time is
yours.

>>> from acb_sdk.testing import AsyncFakeBus
>>> async def test_a_job_that_nobody_settles_is_tried_again():
...     async with AsyncFakeBus() as bus:
...         worker = await bus.client("worker")
...         await worker.agents.register("worker")
...         planner = await bus.client("planner")
...         await planner.messages.send("worker", "count me")
...         async with worker.inbox() as inbox:
...             assert (await inbox.next(timeout=5)).attempt == 1
...             await bus.advance(30)  # the lease ends
...             await bus.advance(1)  # and its wait for the next attempt
...             assert (await inbox.next(timeout=5)).attempt == 2

``FakeBus`` has the same methods without ``await``. With pytest, the fixtures ``fake_bus`` and ``async_fake_bus`` are there
without an import.

It is the server itself over memory stores, reached by pipes instead of sockets, and so it does what the server does, down
to error codes and order. It is no place to keep anything: what it stores ends with it. Its speed says nothing about the
server's.
"""

from . import _native

if not hasattr(_native, "NativeFakeBus"):
    raise ImportError("this build of acb_sdk has no fake bus: it was built without its feature `testing`")

from ._async_fake_bus import AsyncFakeBus
from ._fake_bus import FakeBus
from ._fake_parts import Network, Way

__all__ = ["AsyncFakeBus", "FakeBus", "Network", "Way"]
