"""Handlers: acknowledged when they return, given back with the reason when they raise, finished when the client drains."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

import acb_sdk

AsyncFace = Callable[..., acb_sdk.AsyncClient]
SyncFace = Callable[..., acb_sdk.Client]


async def test_for_each_acks_nacks_and_bounds_what_runs(async_face: AsyncFace) -> None:
    async with async_face("alice") as alice, async_face("bob") as bob:
        await alice.subscriptions.create("work", "work.x", max_attempts=1)
        ids = [(await alice.messages.publish("work.x", str(number))).id for number in range(20)]
        running = most = 0
        done: list[str] = []
        all_done = asyncio.Event()

        async def handle(message: acb_sdk.AsyncMessage) -> None:
            nonlocal running, most
            running += 1
            most = max(most, running)
            await asyncio.sleep(0)
            running -= 1
            done.append(message.text)
            if len(done) == 20:
                all_done.set()
            if message.text == "7":
                raise ValueError("seven is not for me")

        working = asyncio.create_task(bob.subscribe("work").for_each(handle, concurrency=4))
        await asyncio.wait_for(all_done.wait(), 20)
        await bob.drain()
        await asyncio.wait_for(working, 20)
        assert 1 < most <= 4
        states = {}
        for message_id in ids:
            state = "leased"
            # On its way to the dead letters a message is neither for a moment.
            while state not in ("acked", "dead"):
                state = (await alice.messages.status(message_id)).subscriptions[0].state
            states[message_id] = state
        assert [states[i] for i in ids].count("acked") == 19
        assert states[ids[7]] == "dead"
        letters = await alice.dead_letters.list("work").all()
        assert [d.last_error for d in letters] == ["ValueError: seven is not for me"]


async def test_a_lease_is_renewed_while_its_handler_runs(async_face: AsyncFace) -> None:
    async with async_face("alice") as alice, async_face("bob") as bob:
        await alice.subscriptions.create("slow", "slow.x", ack_wait=1, max_attempts=1)
        sent = await alice.messages.publish("slow.x", "take your time")
        running, enough = asyncio.Event(), asyncio.Event()

        async def handle(_: acb_sdk.AsyncMessage) -> None:
            running.set()
            await enough.wait()

        working = asyncio.create_task(bob.subscribe("slow").for_each(handle))
        await asyncio.wait_for(running.wait(), 20)
        first = (await alice.messages.status(sent.id)).subscriptions[0]
        assert first.due_at is not None
        # The same end may be shown a millisecond off: it stands on another clock.
        later = first.due_at + timedelta(milliseconds=100)
        async with asyncio.timeout(20):
            while True:
                now = (await alice.messages.status(sent.id)).subscriptions[0]
                assert now.state == "leased" and now.due_at is not None
                if now.due_at > later:
                    break
                await asyncio.sleep(0.01)
        enough.set()
        await bob.drain()
        await asyncio.wait_for(working, 20)
        assert (await alice.messages.status(sent.id)).subscriptions[0].state == "acked"


async def test_cancelling_for_each_gives_messages_back(async_face: AsyncFace) -> None:
    async with async_face("alice") as alice, async_face("bob") as bob:
        await bob.agents.register("bob")
        await alice.messages.send("bob", "one")
        began, ended = asyncio.Event(), []

        async def handle(message: acb_sdk.AsyncMessage) -> None:
            began.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.append(message.text)

        inbox = bob.inbox()
        working = asyncio.create_task(inbox.for_each(handle))
        await asyncio.wait_for(began.wait(), 20)
        working.cancel()
        with pytest.raises(asyncio.CancelledError):
            await working
        assert ended == ["one"], "the handler was cancelled too"
        await inbox.close()
        async with bob.inbox() as again:
            message = await again.next(timeout=20)
            assert message is not None and (message.text, message.attempt) == ("one", 1)
            await message.ack_confirmed()


async def test_serve_sends_what_the_handler_returns(async_face: AsyncFace) -> None:
    async with async_face("alice") as alice, async_face("bob") as bob:
        await alice.agents.register("alice")
        await bob.agents.register("bob")

        async def handle(message: acb_sdk.AsyncMessage) -> dict[str, Any]:
            return {"words": len(message.text.split())}

        serving = asyncio.create_task(bob.serve(handle))
        answer = None
        while answer is None:
            try:
                answer = await alice.messages.request("bob", "count these four words", timeout=10)
            except acb_sdk.UnavailableError as error:
                # Not there yet.
                assert error.code == "no_responders"
        assert answer.json() == {"words": 4}
        assert answer.content_type == "application/json"
        many = await asyncio.gather(*(alice.messages.request("bob", "x " * n, timeout=10) for n in range(1, 50)))
        assert [m.json()["words"] for m in many] == list(range(1, 50))
        await bob.drain()
        await asyncio.wait_for(serving, 20)


def test_sync_handlers_run_in_threads_and_end_with_the_drain(sync_face: SyncFace) -> None:
    with sync_face("alice") as alice, sync_face("bob") as bob:
        alice.agents.register("alice")
        bob.agents.register("bob")
        together = threading.Barrier(3)

        def handle(message: acb_sdk.Message) -> str | None:
            if message.text == "together":
                together.wait(20)
                return "met"
            if message.text == "fail":
                raise RuntimeError("no")
            return message.text.upper()

        serving = threading.Thread(target=bob.serve, args=(handle,), kwargs={"concurrency": 4})
        serving.start()
        answer = None
        while answer is None:
            try:
                answer = alice.messages.request("bob", "hello", timeout=10)
            except acb_sdk.UnavailableError as error:
                assert error.code == "no_responders"
        assert answer.text == "HELLO"
        answers: list[str] = []
        asking = [
            threading.Thread(
                target=lambda: answers.append(alice.messages.request("bob", "together", timeout=20).text)
            )
            for _ in range(3)
        ]
        for thread in asking:
            thread.start()
        for thread in asking:
            thread.join()
        assert answers == ["met"] * 3
        bob.drain()
        serving.join(20)
        assert not serving.is_alive()
