"""What must hold at the border: signals, cancelling, forks, the end of the process, threads, wakes, descriptors."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from conftest import Server, run_program

import acb_sdk

AsyncFace = Callable[..., acb_sdk.AsyncClient]
SyncFace = Callable[..., acb_sdk.Client]


def threads() -> int:
    return len(os.listdir("/proc/self/task"))


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


PREFIX = """
import asyncio, os, signal, sys, threading, time
import acb_sdk
# A shell that starts its jobs in the background has them ignore Ctrl-C, and so would we.
signal.signal(signal.SIGINT, signal.default_int_handler)
endpoint, tenant = sys.argv[1:3]
def credentials(agent):
    return acb_sdk.Credentials.dev(agent, tenant=tenant)
"""


@pytest.mark.parametrize(
    "blocked",
    [
        "next(iter(bus.listen('quiet.>')))",
        "bus.messages.request('bob', 'never answered', timeout=60)",
        "bus.events().next()",
    ],
)
def test_ctrl_c_ends_a_blocking_call_within_a_tenth_of_a_second(server: Server, tenant: str, blocked: str) -> None:
    program = PREFIX + f"""
with acb_sdk.Client(endpoint, credentials=credentials("alice")) as bus:
    with acb_sdk.Client(endpoint, credentials=credentials("bob")) as bob:
        bus.agents.register("alice")
        bob.agents.register("bob")
        inbox = bob.inbox().open()
        print("ready", flush=True)
        try:
            {blocked}
        except KeyboardInterrupt:
            print(time.monotonic(), flush=True)
            bus.close()
            bob.close()
"""
    # The quickest of three: what else the machine does is not the client's.
    took = [ctrl_c(program, server, tenant) for _ in range(3)]
    assert min(took) < 0.1, took


def ctrl_c(program: str, server: Server, tenant: str) -> float:
    """How long a blocked program takes from the signal to its exception, in seconds."""
    command = [sys.executable, "-c", program, server.endpoint, tenant]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        # One that does not end is a failure and not a wait for ever.
        guard = threading.Timer(30, process.kill)
        guard.start()
        assert process.stdout.readline() == "ready\n"
        # Until the main thread sleeps inside the call.
        until = time.monotonic() + 10
        while time.monotonic() < until:
            if pathlib.Path(f"/proc/{process.pid}/stat").read_text().rsplit(") ", 1)[1][0] == "S":
                break
        sent = time.monotonic()
        process.send_signal(signal.SIGINT)
        ended = float(process.stdout.readline())
        assert process.wait(10) == 0
        guard.cancel()
    return ended - sent


async def test_cancelling_a_receive_loses_no_message(async_face: AsyncFace) -> None:
    async with async_face("alice") as alice, async_face("bob", max_pending=1000) as bob:
        async with bob.listen("numbers") as messages:
            publisher = alice.messages.publisher("numbers", durability="written")
            got: list[str] = []

            async def publish() -> None:
                for number in range(500):
                    await publisher.publish(str(number))
                    if number % 7 == 0:
                        await asyncio.sleep(0)

            publishing = asyncio.create_task(publish())
            cancelled = 0
            while len(got) < 500:
                receiving = asyncio.create_task(messages.next())
                await asyncio.sleep(0)
                if not receiving.done() and cancelled < 300:
                    receiving.cancel()
                    cancelled += 1
                try:
                    message = await receiving
                except asyncio.CancelledError:
                    continue
                assert message is not None
                got.append(message.text)
                await message.ack()
            await publishing
            assert got == [str(number) for number in range(500)]
            assert cancelled > 0


async def test_cancelling_a_task_reaches_the_core(async_face: AsyncFace) -> None:
    async with async_face("alice") as alice, async_face("bob") as bob:
        await alice.agents.register("alice")
        await bob.agents.register("bob")
        async with bob.inbox():
            asking = asyncio.create_task(alice.messages.request("bob", "?", timeout=60))
            while alice.stats()["in_flight"] == 0 or not asking:
                await asyncio.sleep(0)
            before = alice.stats()
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            while alice.stats()["in_flight"] >= before["in_flight"]:
                await asyncio.sleep(0)
            assert alice.stats()["cancelled"] == before["cancelled"] + 1
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await alice.messages.request("bob", "?", timeout=60)
            with pytest.raises(acb_sdk.DeadlineExceededError) as caught:
                await alice.messages.request("bob", "?", timeout=0.05)
            assert isinstance(caught.value, TimeoutError)


def test_a_forked_child_is_told_and_may_make_its_own(server: Server, tenant: str) -> None:
    program = PREFIX + """
bus = acb_sdk.Client(endpoint, credentials=credentials("alice")).connect()
bus.agents.register("alice")
listening = bus.listen("forks").open()
bus.messages.publish("forks", "before")
message = listening.next(timeout=10)
publisher = bus.messages.publisher("forks")
child = os.fork()
if child == 0:
    said = []
    for call in (lambda: bus.agents.get("alice"), lambda: bus.messages.publish("forks", "x"), message.ack,
                 lambda: publisher.publish(b"x"), lambda: listening.next(timeout=1)):
        try:
            call()
        except acb_sdk.AcbError as error:
            said.append(error.code)
            told = error
    assert said == ["client_forked"] * 5, said
    assert str(os.getpid()) in str(told) and str(os.getppid()) in str(told), told
    bus.close()
    with acb_sdk.Client(endpoint, credentials=credentials("child")) as own:
        own.agents.register("child")
        own.messages.publish("forks", "from the child")
    del bus, listening, message, publisher
    sys.exit(7)
_, status = os.waitpid(child, 0)
assert os.waitstatus_to_exitcode(status) == 7, status
message.ack()
last = listening.next(timeout=10)
assert last.text == "from the child"
last.ack()
bus.drain()
print("well")
"""
    done = run_program(program, server.endpoint, tenant)
    assert (done.returncode, done.stdout) == (0, "well\n"), done.stderr


@pytest.mark.parametrize(
    "left_open",
    [
        "bus = acb_sdk.Client(endpoint, credentials=credentials('a')).connect(); feed = bus.listen('x').open()",
        "bus = acb_sdk.Client(endpoint, credentials=credentials('a')).connect()\n"
        "feed = bus.listen('x').open()\n"
        "def read():\n"
        "    try:\n"
        "        feed.next()\n"
        "    except acb_sdk.OperationCancelledError:\n"
        "        pass\n"
        "threading.Thread(target=read, daemon=True).start()",
        "async def main():\n"
        "    global bus\n"
        "    bus = await acb_sdk.AsyncClient(endpoint, credentials=credentials('a')).connect()\n"
        "    asyncio.create_task(bus.listen('x').next())\n"
        "    await asyncio.sleep(0)\n"
        "asyncio.run(main())",
    ],
)
def test_nothing_is_left_running_at_exit(server: Server, tenant: str, left_open: str) -> None:
    started = time.monotonic()
    done = run_program(PREFIX + left_open + "\nprint('end')", server.endpoint, tenant)
    assert (done.returncode, done.stdout, done.stderr) == (0, "end\n", "")
    assert time.monotonic() - started < 5


async def test_an_async_client_is_of_one_loop(async_face: AsyncFace) -> None:
    async with async_face("alice") as alice:
        agents = alice.agents

        def elsewhere() -> str:
            with pytest.raises(acb_sdk.ConflictError) as caught:
                asyncio.run(agents.get("alice"))
            return caught.value.code

        assert await asyncio.to_thread(elsewhere) == "invalid_state"


async def test_a_busy_loop_is_woken_seldom_and_has_as_many_threads_as_before(async_face: AsyncFace) -> None:
    count = 20_000
    async with async_face("alice", max_pending=1024) as alice:
        async with alice.listen("load") as messages:
            publisher = alice.messages.publisher("load", durability="written")
            await publisher.publish_many([b"warm"])
            first = await messages.next(timeout=10)
            assert first is not None
            await first.ack()
            before, at_first = alice.stats(), threads()

            async def publish() -> None:
                for _ in range(count):
                    await publisher.publish(b"x" * 256)
                await alice.messages.flush()

            async def receive() -> None:
                got = 0
                async for message in messages:
                    await message.ack()
                    got += 1
                    if got == count:
                        return

            await asyncio.gather(publish(), receive())
            after = alice.stats()
            per_thousand = (after["wakes"] - before["wakes"]) * 1000 / count
            assert per_thousand <= 20, f"{per_thousand} wakes per 1,000 messages"
            assert threads() == at_first


async def test_many_clients_come_and_go_without_a_trace(async_face: AsyncFace, sync_face: SyncFace) -> None:
    async def cycle() -> None:
        async with async_face("alice") as alice, alice.listen("x"):
            await alice.health()

    def cycle_sync() -> None:
        with sync_face("bob") as bob, bob.listen("x"):
            bob.health()

    for _ in range(5):
        await cycle()
        await asyncio.to_thread(cycle_sync)
    gc.collect()
    threads_before, descriptors_before = threads(), descriptors()
    for _ in range(40):
        await cycle()
        await asyncio.to_thread(cycle_sync)
    gc.collect()
    assert threads() <= threads_before + 1
    assert descriptors() <= descriptors_before + 2


async def test_what_is_in_flight_survives_a_killed_server(own_server: Server, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="acb_sdk")
    credentials = acb_sdk.Credentials.dev("alice")
    async with acb_sdk.AsyncClient(own_server.endpoint, credentials=credentials) as alice:
        await alice.subscriptions.create("kept", "kept.x")
        events = alice.events()
        publisher = alice.messages.publisher("kept.x")
        receipts = [await publisher.publish(f"a{number}") for number in range(100)]
        own_server.kill()
        receipts += [await publisher.publish(f"b{number}") for number in range(100)]
        await asyncio.to_thread(own_server.start)
        stored = [await receipt.result(timeout=20) for receipt in receipts]
        assert len({p.id for p in stored}) == 200
        names = []
        while "resumed" not in names:
            event = await events.next(timeout=20)
            assert event is not None
            names.append(event.name)
        assert "suspended" in names
        async with alice.subscribe("kept", max_pending=500) as messages:
            got: list[str] = []
            while len(got) < 200:
                for message in await messages.next_batch(timeout=20):
                    got.append(message.text)
                    await message.ack()
        assert got == [f"a{n}" for n in range(100)] + [f"b{n}" for n in range(100)]
    assert any("connection" in record.getMessage() for record in caplog.records), caplog.text


def test_a_panic_of_ours_is_an_error_of_its_call() -> None:
    # A seq of 64 bits and one more: whatever the border makes of it, it is an exception of ours.
    with pytest.raises(acb_sdk.InvalidArgumentError) as caught:
        acb_sdk.Client(options=acb_sdk.Options(publish_window_messages=1 << 40)).connect()
    assert caught.value.context["field"] == "publish_window_messages"


def test_calls_from_many_threads_share_one_sync_client(sync_face: SyncFace) -> None:
    with sync_face("alice") as alice:
        failures: list[BaseException] = []

        def work(number: int) -> None:
            try:
                for at in range(50):
                    alice.messages.publish(f"threads.t{number}", str(at), durability="written", timeout=20)
            except BaseException as error:
                failures.append(error)

        with alice.listen("threads.>", max_pending=1000) as messages:
            workers = [threading.Thread(target=work, args=(number,)) for number in range(8)]
            for worker in workers:
                worker.start()
            got: dict[str, list[str]] = {}
            while sum(map(len, got.values())) < 400:
                for message in messages.next_batch(timeout=20):
                    got.setdefault(message.topic, []).append(message.text)
                    message.ack()
            for worker in workers:
                worker.join()
        assert failures == []
        assert len(got) == 8
        assert all(numbers == [str(at) for at in range(50)] for numbers in got.values()), "each in its order"


def test_an_exception_tells_the_same_after_pickling() -> None:
    import pickle

    error: Any = acb_sdk.NotFoundError(
        "no such agent", code="agent_not_found", operation="agents.get", context={"id": "x"}, request_id="r"
    )
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is acb_sdk.NotFoundError
    assert (again.code, again.context, again.request_id, str(again)) == (
        error.code, error.context, error.request_id, str(error),
    )


def is_open(path: pathlib.Path) -> bool:
    """Whether this process has a file open."""
    folder = pathlib.Path("/proc/self/fd")
    return any(os.path.realpath(folder / number) == str(path) for number in os.listdir(folder))


async def test_cancelling_an_upload_reaches_the_core(own_server: Server, tmp_path: pathlib.Path) -> None:
    size, chunk = 8 << 20, 256 << 10
    source, token = tmp_path / "source", tmp_path / "token"
    with source.open("wb") as file:
        file.truncate(size)
    begun = asyncio.Event()

    def progress(how_far: acb_sdk.Progress) -> None:
        # Without a server it neither ends nor fails by itself: what it holds goes when it is given up, and not before.
        if how_far.done_bytes and not begun.is_set():
            own_server.kill()
            begun.set()

    options: dict[str, Any] = {"key": "k", "chunk_bytes": chunk, "window_bytes": chunk, "resume_file": token}
    async with acb_sdk.AsyncClient(own_server.endpoint, credentials=acb_sdk.Credentials.dev("alice")) as alice:
        task = asyncio.create_task(alice.contexts.upload(source, progress=progress, **options))
        await begun.wait()
        assert is_open(source)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        until = time.monotonic() + 10
        while is_open(source):
            assert time.monotonic() < until, "the core goes on with what was cancelled"
            await asyncio.sleep(0.01)
        own_server.start()
        up = await alice.contexts.upload(source, **options)
        assert 0 < up.sent_bytes < size
        assert (up.size, token.exists()) == (size, False)


async def test_cancelling_a_wait_for_a_change_loses_none(async_face: AsyncFace) -> None:
    async with async_face("alice") as alice, async_face("bob") as bob:
        async with bob.contexts.watch() as watch:
            first = await watch.next()
            assert first is not None and first.kind == "synced"
            keys = [f"k/{number}" for number in range(40)]
            seen: list[str | None] = []
            for key in keys:
                waiting = asyncio.create_task(watch.next())
                await asyncio.sleep(0)
                await alice.contexts.share(key, "x", scope="public")
                waiting.cancel()
                try:
                    event = await waiting
                except asyncio.CancelledError:
                    continue
                assert event is not None and event.context is not None
                seen.append(event.context.key)
            while len(seen) < len(keys):
                event = await watch.next(timeout=10)
                assert event is not None and event.context is not None
                seen.append(event.context.key)
            assert seen == keys
