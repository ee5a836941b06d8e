"""Fixtures of pytest: a fake bus for each test that asks for one. Found by pytest itself where `acb-sdk` is installed.

A package beside `acb_sdk` and not in it: every run of pytest imports its plugins, and a run in which no test wants a bus
should not wait for a client that it does not use. `acb_sdk` is imported by the first test that asks for a fixture.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from acb_sdk.testing import AsyncFakeBus, FakeBus

__all__ = ["async_fake_bus", "fake_bus"]


@pytest.fixture
def fake_bus() -> Iterator[FakeBus]:
    """A running fake bus of this test alone: `client = fake_bus.client("worker")`. Closed after it, clients and all."""
    from acb_sdk.testing import FakeBus

    with FakeBus() as bus:
        yield bus


@pytest.fixture
def async_fake_bus() -> Iterator[AsyncFakeBus]:
    """A running fake bus of this test alone, async: `client = await async_fake_bus.client("worker")`. Closed after it,
    clients and all.

    The fixture itself waits on its thread and not in an event loop. So it works with whatever runs the test's coroutine
    (pytest-asyncio, anyio, a hook of your own), needs none of them, and whose loop its fixtures run in is no question: a
    bus belongs to no loop, and a client belongs to the one that it was asked for in, which is the test's.
    """
    from acb_sdk.testing import AsyncFakeBus, FakeBus

    with FakeBus() as held:
        yield AsyncFakeBus._of(held)
