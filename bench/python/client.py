"""One client in Python, driven and measured by `acb-bench load` (bench/src/load/python.rs).

It reads its job from the first line of its input, connects, says ``ready``, waits for ``go``, does the job, says what it
did as one line of JSON, and stays until its input ends, so that its CPU time can be read. Every client runs in uvloop, with
the same windows, payloads and checks; each uses the fastest documented calls of its library that keep the promise:

- ACB: ``publisher.publish`` gives a receipt at once, ``flush`` at the end; ``async for`` over a durable subscription, one
  ``ack`` each.
- nats-py: ``publish_async`` and ``publish_async_completed``; a durable push subscription with a callback, or ``fetch(500)``,
  one ``ack`` each.
- redis-py with hiredis: pipelines of a window of ``XADD``; ``XREADGROUP``, one ``XACK`` each, in one pipeline with the next
  read.
"""

from __future__ import annotations

import asyncio
import json
import sys
from time import perf_counter
from typing import TYPE_CHECKING, Any

import uvloop

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

SUBJECT = "b.1"
STREAM = "BENCH"
GROUP = "g"
FIELD = "d"
DURABLE = "d0"
FETCH = 500
WINDOW_BYTES = 16 << 20
# Before one in so many pipelined messages the clock is read, as in Rust.
CLOCK_EVERY = 64


class Job:
    """What to do, and the turns of the talk with who measures."""

    def __init__(self, fields: dict[str, Any]) -> None:
        self.target: str = fields["target"]
        self.role: str = fields["role"]
        self.form: str = fields["form"]
        self.address: str = fields["address"]
        self.key: str = fields["key"] or ""
        self.payload = bytes(i * 31 % 251 for i in range(fields["payload"]))
        self.window: int = fields["window"]
        self.seconds: float = fields["seconds"]
        self.count: int = fields["count"]
        self.path: str = fields["path"] or ""
        self.context: str = fields["context"] or ""

    async def turn(self) -> None:
        """Says that it is ready, and waits to be let go."""
        print("ready", flush=True)
        line = await self._line()
        if line != "go\n":
            raise SystemExit(f"expected go, got {line!r}")

    async def done(self, count: int, **more: object) -> None:
        """Says what was done, and stays until nobody wants to know more."""
        print(json.dumps({"count": count, "wakes": None, **more}), flush=True)
        while await self._line():
            pass

    async def _line(self) -> str:
        return await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)

    def check(self, index: int, payload: bytes) -> None:
        """Refuses a message that is not the one that is due."""
        if len(payload) != len(self.payload) or int.from_bytes(payload[:8], "little") != index:
            raise SystemExit(f"{self.target}: another message came where {index} was due")


def acb_client(job: Job) -> Any:
    """A client with the case's window; everything else is the default."""
    import acb_sdk

    options = acb_sdk.Options(publish_window_messages=max(job.window, 16), publish_window_bytes=WINDOW_BYTES)
    credentials = acb_sdk.Credentials.enrolment_key(job.key, "bench-python")
    return acb_sdk.AsyncClient(f"acb://{job.address}", credentials=credentials, options=options)


async def acb_publish(job: Job) -> None:
    """Publishes with a window of open receipts until the time is up, then waits for all of them."""
    async with acb_client(job) as bus:
        publisher = bus.messages.publisher(SUBJECT, durability="written")
        await job.turn()
        wakes = bus.stats()["wakes"]
        until, count = perf_counter() + job.seconds, 0
        while count % CLOCK_EVERY or perf_counter() < until:
            await publisher.publish(job.payload)
            count += 1
        await bus.messages.flush()
        await job.done(count, wakes=bus.stats()["wakes"] - wakes)


async def acb_tasks(job: Job) -> None:
    """As many tasks as the window, each publishing and waiting for its own receipt."""
    async with acb_client(job) as bus:
        publisher = bus.messages.publisher(SUBJECT, durability="written")
        await job.turn()
        until = perf_counter() + job.seconds

        async def one() -> int:
            count = 0
            while perf_counter() < until:
                await (await publisher.publish(job.payload))
                count += 1
            return count

        counts = await asyncio.gather(*(one() for _ in range(job.window)))
        await job.done(sum(counts))


async def acb_receive(job: Job) -> None:
    """Works off a backlog with one ack each."""
    async with acb_client(job) as bus:
        await job.turn()
        wakes, index = bus.stats()["wakes"], 0
        async with bus.subscribe(DURABLE, max_pending=job.window) as messages:
            async for message in messages:
                job.check(index, message.payload)
                await message.ack()
                index += 1
                if index == job.count:
                    break
            await job.done(index, wakes=bus.stats()["wakes"] - wakes)


async def acb_upload(job: Job) -> None:
    """Uploads a file; the bus tells size and digest."""
    async with acb_client(job) as bus:
        await job.turn()
        done = await bus.contexts.upload(job.path, key="bench/python")
        await job.done(done.size, sha256=digest(done.sha256))


async def acb_download(job: Job) -> None:
    """Downloads a context to a file."""
    async with acb_client(job) as bus:
        await job.turn()
        done = await bus.contexts.download(job.context, to=job.path)
        await job.done(done.size, sha256=digest(done.sha256))


def digest(sha256: bytes | str) -> str:
    """A digest as hex digits."""
    return sha256 if isinstance(sha256, str) else sha256.hex()


async def nats_publish(job: Job) -> None:
    """Publishes with a window of open acks until the time is up, then waits for all of them."""
    import nats

    connection = await nats.connect(f"nats://{job.address}")
    jetstream = connection.jetstream(publish_async_max_pending=job.window)
    await job.turn()
    until, count = perf_counter() + job.seconds, 0
    while count % CLOCK_EVERY or perf_counter() < until:
        await jetstream.publish_async(SUBJECT, job.payload)
        count += 1
    await jetstream.publish_async_completed()
    await job.done(count)
    await connection.close()


async def nats_receive(job: Job) -> None:
    """Works off a backlog with one ack each: pushed to a callback, or fetched."""
    import nats
    from nats.js.api import ConsumerConfig

    connection = await nats.connect(f"nats://{job.address}")
    jetstream = connection.jetstream()
    await job.turn()
    config = ConsumerConfig(max_ack_pending=job.window)
    index = 0
    if job.form == "push":
        all_here = asyncio.get_running_loop().create_future()

        async def callback(message: Any) -> None:
            nonlocal index
            job.check(index, message.data)
            await message.ack()
            index += 1
            if index == job.count:
                all_here.set_result(None)

        await jetstream.subscribe("b.>", durable=DURABLE, stream=STREAM, config=config, cb=callback, manual_ack=True)
        await all_here
    else:
        consumer = await jetstream.pull_subscribe("b.>", durable=DURABLE, stream=STREAM, config=config)
        while index < job.count:
            for message in await consumer.fetch(FETCH, timeout=5):
                job.check(index, message.data)
                await message.ack()
                index += 1
    await connection.flush()
    await job.done(index)
    await connection.close()


def redis_client(job: Job) -> Any:
    """One connection, answers in the older protocol's shape."""
    import redis.asyncio

    host, port = job.address.rsplit(":", 1)
    return redis.asyncio.Redis(host=host, port=int(port), single_connection_client=True, protocol=2)


async def redis_publish(job: Job) -> None:
    """Pipelines of a window until the time is up."""
    async with redis_client(job) as connection:
        await connection.ping()
        await job.turn()
        until, count = perf_counter() + job.seconds, 0
        while perf_counter() < until:
            pipeline = connection.pipeline(transaction=False)
            for _ in range(job.window):
                pipeline.xadd(STREAM, {FIELD: job.payload})
            count += len(await pipeline.execute())
        await job.done(count)


async def redis_receive(job: Job) -> None:
    """Works off a backlog through a consumer group."""
    async with redis_client(job) as connection:
        await connection.ping()
        await job.turn()
        await connection.xgroup_create(STREAM, GROUP, id="0")
        index, ids = 0, []
        while True:
            pipeline = connection.pipeline(transaction=False)
            for one in ids:
                pipeline.xack(STREAM, GROUP, one)
            pipeline.xreadgroup(GROUP, "c", {STREAM: ">"}, count=job.window // 2)
            answers = await pipeline.execute()
            ids = []
            for _, entries in answers[-1]:
                for one, fields in entries:
                    job.check(index, fields[FIELD.encode()])
                    ids.append(one)
                    index += 1
            # Nothing new: the acks of the last batch were in front of this very read.
            if not ids:
                break
        await job.done(index)


JOBS: dict[tuple[str, str], Callable[[Job], Awaitable[None]]] = {
    ("acb", "publish"): acb_publish,
    ("acb", "tasks"): acb_tasks,
    ("acb", "receive"): acb_receive,
    ("acb", "upload"): acb_upload,
    ("acb", "download"): acb_download,
    ("nats", "publish"): nats_publish,
    ("nats", "receive"): nats_receive,
    ("redis", "publish"): redis_publish,
    ("redis", "receive"): redis_receive,
}


async def main() -> None:
    """Does the one job."""
    job = Job(json.loads(sys.stdin.readline()))
    await JOBS[job.target, job.role](job)


if __name__ == "__main__":
    uvloop.run(main())
