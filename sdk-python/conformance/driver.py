"""Runs scenarios' commands with the installed client: JSON lines in, JSON lines out.

    driver.py async|sync [fake [setting=value ...]]

With `fake` it has a bus of its own (`acb_sdk.testing`): commands to agent 0 are for it, and agents placed at `fake` reach
it.

What a scenario means is worked out by `conformance/testkit`; here each command is one plain call of the client.
"""

from __future__ import annotations

import asyncio
import json
import pathlib
import queue
import sys
import threading
from collections.abc import Callable
from typing import Any

# Imported by its path: the folder of this file has the actors, and the client must come from where it is installed.
sys.path.insert(0, str(pathlib.Path(__file__).parent))

import acb_sdk

if "site-packages" not in acb_sdk.__file__:
    sys.exit(f"{acb_sdk.__file__} is not the installed package")

_out = threading.Lock()


def say(answer: dict[str, Any]) -> None:
    line = json.dumps(answer)
    with _out:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


def failed(number: int, error: BaseException) -> None:
    if isinstance(error, acb_sdk.AcbError):
        told = {"code": error.code, "message": str(error), "retryable": error.retryable}
    elif getattr(error, "code", None):
        told = {"code": error.code, "message": str(error), "retryable": False}  # type: ignore[attr-defined]
    else:
        told = {"code": "driver_error", "message": repr(error), "retryable": False}
    say({"id": number, "error": told})


# The agent that is the bus.
BUS = 0


async def run_async(settings: dict[str, str] | None) -> None:
    from async_actor import AsyncActor
    from async_bus import AsyncBusActor

    fake = None if settings is None else AsyncBusActor(settings)
    actors: dict[int, AsyncActor] = {}
    running: set[asyncio.Task[None]] = set()

    def background(work: Callable[[], Any]) -> asyncio.Future[Any]:
        return asyncio.ensure_future(work())

    async def one(command: dict[str, Any]) -> None:
        number = command["id"]
        try:
            if fake is not None and command["agent"] == BUS:
                say({"id": number, "result": await fake.call(command["verb"], command["args"])})
                return
            actor = actors.setdefault(command["agent"], AsyncActor(background, asyncio.to_thread, fake))
            result = await actor.call(command["verb"], command["args"] or {})
            if command["verb"] == "forget":
                actors.pop(command["agent"], None)
            say({"id": number, "result": result})
        except Exception as error:
            failed(number, error)

    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=64 << 20)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        task = asyncio.create_task(one(json.loads(line)))
        running.add(task)
        task.add_done_callback(running.discard)


class Pending:
    """What `asyncio.Future` is there: an answer that a thread waits for."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self._result: Any = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(work,), daemon=True)
        self._thread.start()

    def _run(self, work: Callable[[], Any]) -> None:
        try:
            self._result = work()
        except BaseException as error:
            self._error = error

    def wait(self) -> Any:
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._result


def run_sync(settings: dict[str, str] | None) -> None:
    from sync_actor import Actor
    from sync_bus import BusActor

    fake = None if settings is None else BusActor(settings)

    def serve(commands: queue.SimpleQueue[dict[str, Any] | None], agent: int) -> None:
        actor = fake if fake is not None and agent == BUS else Actor(Pending, lambda work: work(), fake)
        while (command := commands.get()) is not None:
            number = command["id"]
            try:
                say({"id": number, "result": actor.call(command["verb"], command["args"] or {})})
            except Exception as error:
                failed(number, error)
            if command["verb"] == "forget":
                return

    # A thread an agent: the calls of one come one after the other, those of several side by side.
    agents: dict[int, queue.SimpleQueue[dict[str, Any] | None]] = {}
    for line in sys.stdin:
        command = json.loads(line)
        agent = command["agent"]
        if agent not in agents:
            agents[agent] = queue.SimpleQueue()
            threading.Thread(target=serve, args=(agents[agent], agent), daemon=True).start()
        agents[agent].put(command)


if __name__ == "__main__":
    face, settings = sys.argv[1:2], None
    if sys.argv[2:3] == ["fake"]:
        settings = dict(word.split("=", 1) for word in sys.argv[3:])
    if face == ["async"]:
        asyncio.run(run_async(settings))
    elif face == ["sync"]:
        run_sync(settings)
    else:
        sys.exit(__doc__)
