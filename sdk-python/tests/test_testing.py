"""`acb_sdk.testing` where its faces differ, its fixtures, and what it leaves behind."""

from __future__ import annotations

import asyncio
import os
import pathlib
import subprocess
import sys
import threading
import time

from conftest import ROOT, run_program

import acb_sdk
from acb_sdk.testing import AsyncFakeBus, FakeBus

# Threads of a bus, by their names.
OF_A_BUS = ("acb-fake", "acb-hot", "commit-", "ticker", "surveyor")


def threads_of_buses() -> list[str]:
    names = []
    for thread in pathlib.Path("/proc/self/task").iterdir():
        try:
            names.append((thread / "comm").read_text().strip())
        except OSError:
            continue
    return sorted(name for name in names if name.startswith(OF_A_BUS))


def is_no_thread_left(within: float = 20) -> bool:
    # The kernel tells who joins a thread before it takes the thread out of this list.
    until = time.monotonic() + within
    while threads_of_buses() and time.monotonic() < until:
        os.sched_yield()
    return not threads_of_buses()


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_names_are_pinned_and_both_faces_have_them() -> None:
    import acb_sdk.testing

    assert acb_sdk.testing.__all__ == ["AsyncFakeBus", "FakeBus", "Network", "Way"]
    public = [{n for n in dir(face) if not n.startswith("_")} for face in (AsyncFakeBus, FakeBus)]
    assert public[0] == public[1]


def test_the_client_alone_knows_no_fake_bus() -> None:
    done = run_program("import sys, acb_sdk\nprint([m for m in sys.modules if 'fake' in m or 'testing' in m])")
    assert done.stdout == "[]\n", done.stderr


def test_a_build_without_the_bus_says_so() -> None:
    done = run_program(
        "from acb_sdk import _native\ndel _native.NativeFakeBus\n"
        "try:\n    import acb_sdk.testing\nexcept ImportError as error:\n    print(error)"
    )
    assert done.stdout.startswith("this build of acb_sdk has no fake bus"), done.stderr


async def test_an_agent_answers_another() -> None:
    async with AsyncFakeBus() as bus:
        worker, planner = await bus.client("worker"), await bus.client("planner")
        await worker.agents.register("worker", capabilities=["text.count"])
        await planner.agents.register("planner")
        async with worker.inbox() as inbox:

            async def answer() -> None:
                request = await inbox.next(timeout=20)
                assert request is not None
                await request.reply({"words": len(request.text.split())})
                await request.ack_confirmed(timeout=20)

            answering = asyncio.create_task(answer())
            reply = await planner.messages.request("worker", "count these four words", timeout=20)
            assert reply.json() == {"words": 4}
            await answering


def test_an_agent_answers_another_without_a_loop() -> None:
    with FakeBus() as bus:
        worker, planner = bus.client("worker"), bus.client("planner")
        worker.agents.register("worker", capabilities=["text.count"])
        planner.agents.register("planner")
        with worker.inbox() as inbox:

            def answer() -> None:
                request = inbox.next(timeout=20)
                assert request is not None
                request.reply({"words": len(request.text.split())})
                request.ack_confirmed(timeout=20)

            answering = threading.Thread(target=answer)
            answering.start()
            reply = planner.messages.request("worker", "count these four words", timeout=20)
            assert reply.json() == {"words": 4}
            answering.join(20)
            assert not answering.is_alive()


async def test_what_takes_time_leaves_the_loop_alone() -> None:
    # A loop that they blocked would have one turn for each of them: the one that began it. What was quick may need no more
    # either, but not each time.
    rounds = 10
    async with AsyncFakeBus() as bus:
        alice = await bus.client("alice")
        await alice.agents.register("alice")
        turns = {"advance": 0, "kill": 0, "restart": 0, "stop": 0}
        for _ in range(rounds):
            for name in turns:
                task = asyncio.ensure_future(bus.advance(3600) if name == "advance" else getattr(bus, name)())
                while not task.done():
                    turns[name] += 1
                    await asyncio.sleep(0)
                await task
            await bus.restart()
        assert min(turns.values()) > rounds, turns


async def test_a_start_that_is_given_up_leaves_nothing() -> None:
    given_up = 0
    for _ in range(20):
        bus = AsyncFakeBus()
        starting = asyncio.ensure_future(bus.start())
        await asyncio.sleep(0)
        starting.cancel()
        if (await asyncio.gather(starting, return_exceptions=True))[0] is bus:
            # It was quicker.
            await bus.close()
        else:
            given_up += 1
            assert not bus.is_running
    assert given_up > 0
    # The threads that began to start see that nobody wants them any more.
    assert await asyncio.to_thread(is_no_thread_left)
    async with AsyncFakeBus() as again:
        assert again.is_running


def test_twenty_buses_leave_no_thread_and_no_descriptor() -> None:
    with FakeBus() as bus:
        assert threads_of_buses() != []
        bus.client("warm")
    before = descriptors()
    for number in range(20):
        with FakeBus() as bus:
            alice = bus.client("alice")
            alice.agents.register("alice")
            alice.messages.send("alice", "mail")
            if number % 2:
                bus.kill()
        assert is_no_thread_left()
    assert descriptors() <= before


def test_a_bus_that_is_forgotten_ends() -> None:
    bus = FakeBus().start()
    alice = bus.client("alice", options=acb_sdk.Options(reconnect_attempts=1))
    assert threads_of_buses() != []
    del bus
    assert is_no_thread_left()
    alice.close()


def test_a_program_that_forgets_to_close_ends_all_the_same() -> None:
    done = run_program(
        "from acb_sdk.testing import FakeBus\nbus = FakeBus().start()\nclient = bus.client('alice')\nprint('here')"
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "here\n", "")


def test_a_child_of_a_fork_is_told() -> None:
    with FakeBus() as bus:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                bus.now()
            except acb_sdk.AcbError as error:
                code = 7 if error.code == "client_forked" and not bus.is_running else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        assert bus.is_running


def test_one_bus_serves_several_loops() -> None:
    bus = AsyncFakeBus()

    async def begin() -> acb_sdk.AsyncClient:
        await bus.start()
        alice = await bus.client("alice")
        await alice.agents.register("alice")
        return alice

    async def go_on() -> None:
        bob = await bus.client("bob")
        assert (await bob.agents.get("alice")).id == "alice"
        # Alice's loop is gone by now; she is closed all the same.
        await bus.close()

    alice = asyncio.run(begin())
    asyncio.run(go_on())
    assert not alice.is_connected
    assert is_no_thread_left()


def test_a_client_of_a_loop_on_another_thread_is_closed_with_the_bus() -> None:
    bus = FakeBus().start()
    there, ended = threading.Event(), threading.Event()
    seen: list[str] = []

    async def listen() -> None:
        client = await AsyncFakeBus._of(bus).client("alice")
        async with client.listen("news.>") as news:
            there.set()
            try:
                await news.next()
            except acb_sdk.AcbError as error:
                seen.append(error.code)
        # And its loop watches nothing any more.
        async with asyncio.timeout(20):
            while asyncio.get_running_loop() in acb_sdk._port._bridges:
                await asyncio.sleep(0)
        ended.set()

    thread = threading.Thread(target=lambda: asyncio.run(listen()))
    thread.start()
    assert there.wait(20)
    bus.close()
    assert ended.wait(20), "who waited was told"
    thread.join(20)
    assert not thread.is_alive() and seen in ([], ["client_closed"])


async def test_who_waits_for_a_client_that_is_closed_is_told() -> None:
    # Each time, and also when its loop has no other client whose wakes it could see.
    for _ in range(100):
        bus = await AsyncFakeBus().start()
        client = await bus.client("alice")
        news = await client.listen("news.>").open()
        waiting = asyncio.ensure_future(news.next())
        await asyncio.sleep(0)
        await bus.close()
        told = (await asyncio.gather(asyncio.wait_for(waiting, 20), return_exceptions=True))[0]
        assert told is None or isinstance(told, acb_sdk.OperationCancelledError), told


TESTS_OF_A_USER = '''
import asyncio, sys
import pytest

def test_nothing_heavy_is_there_before_a_fixture():
    assert "pytest_acb_sdk" in sys.modules
    assert "acb_sdk" not in sys.modules

def test_sync(fake_bus):
    worker = fake_bus.client("worker")
    worker.agents.register("worker")
    worker.messages.send("worker", "mail")
    with worker.inbox() as inbox:
        assert inbox.next(timeout=20).attempt == 1
        fake_bus.advance(30)
        fake_bus.advance(1)
        assert inbox.next(timeout=20).attempt == 2

def test_each_test_has_its_own(fake_bus):
    import acb_sdk
    with pytest.raises(acb_sdk.NotFoundError):
        fake_bus.client("planner").agents.get("worker")

def test_async(async_fake_bus):
    async def body():
        worker = await async_fake_bus.client("worker")
        await worker.agents.register("worker")
        await async_fake_bus.advance(1)
        # Left open: the fixture closes it, when this loop is gone.
        return worker
    left.append(asyncio.run(body()))

left = []

def test_what_was_left_open_is_closed():
    (worker,) = left
    assert not worker.is_connected

def test_a_bus_may_fail_its_test(fake_bus):
    fake_bus.kill()
'''


def run_pytest(folder: pathlib.Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments, str(folder)],
        capture_output=True, text=True, timeout=120, check=False, cwd=folder,
    )


def test_pytest_finds_the_fixtures_by_itself(tmp_path: pathlib.Path) -> None:
    (tmp_path / "test_agents.py").write_text(TESTS_OF_A_USER)
    done = run_pytest(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "6 passed" in done.stdout
    shown = run_pytest(tmp_path, "--fixtures").stdout
    for name in ("fake_bus", "async_fake_bus"):
        assert f"\n{name} " in shown, shown


def test_the_fixture_works_in_a_loop_that_a_plugin_runs(tmp_path: pathlib.Path) -> None:
    # As pytest-asyncio and others do it: the loop is there before the fixture and outlives the test.
    (tmp_path / "conftest.py").write_text('''
import asyncio, inspect
import pytest

@pytest.fixture(scope="session")
def loop():
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()

@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    if inspect.iscoroutinefunction(pyfuncitem.obj):
        arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
        pyfuncitem.funcargs["loop"].run_until_complete(pyfuncitem.obj(**arguments))
        return True
''')
    (tmp_path / "test_agents.py").write_text('''
async def test_one(loop, async_fake_bus):
    worker = await async_fake_bus.client("worker")
    await worker.agents.register("worker")

async def test_two(loop, async_fake_bus):
    worker = await async_fake_bus.client("worker")
    await async_fake_bus.kill()
    await async_fake_bus.restart()
    assert await worker.agents.register("worker")
''')
    done = run_pytest(tmp_path)
    assert (done.returncode, "2 passed" in done.stdout) == (0, True), done.stdout + done.stderr


def test_what_the_guide_says_runs(tmp_path: pathlib.Path) -> None:
    page = (ROOT / "docs/guide/testing.md").read_text(encoding="utf-8")
    blocks = [block.split("```")[0] for block in page.split("```python\n")[1:]]
    assert len(blocks) == 2, "one with the fixture, one async"
    for number, block in enumerate(blocks):
        (tmp_path / f"test_guide_{number}.py").write_text(block)
    done = run_pytest(tmp_path)
    assert (done.returncode, "2 passed" in done.stdout) == (0, True), done.stdout + done.stderr
