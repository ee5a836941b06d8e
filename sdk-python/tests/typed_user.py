"""What a user with strict types writes. Checked by mypy and pyright, and run."""

from __future__ import annotations

import asyncio
import io
import sys
from datetime import datetime

import acb_sdk
from acb_sdk.testing import AsyncFakeBus, FakeBus, Network, Way


async def worker(bus: acb_sdk.AsyncClient, topics: list[str]) -> int:
    counted = 0
    async with bus.listen(*topics, max_pending=128, start="all") as messages:
        async for message in messages:
            job: dict[str, int] = message.json()
            counted += job["n"]
            await message.ack()
            if message.attributes.get("last") == "yes":
                break
    return counted


async def publish(bus: acb_sdk.AsyncClient, count: int) -> list[str | None]:
    publisher = bus.messages.publisher("numbers.all", durability="written")
    receipts: list[acb_sdk.AsyncReceipt] = [await publisher.publish({"n": number}) for number in range(count)]
    ids: list[str | None] = [(await receipt).id for receipt in receipts]
    stored: acb_sdk.Published = await bus.messages.publish("numbers.all", {"n": 0}, attributes={"last": "yes"})
    level: acb_sdk.Durability = stored.durability
    assert level == "synced"
    return ids


async def main(endpoint: str, tenant: str) -> None:
    credentials = acb_sdk.Credentials.dev("typed", tenant=tenant)
    async with acb_sdk.AsyncClient(endpoint, credentials=credentials) as bus:
        agent: acb_sdk.Agent = await bus.agents.register("typed", capabilities=[acb_sdk.Capability("text.count")])
        found = [a.id async for a in bus.agents.discover(capabilities=["text.count"])]
        assert found == [agent.id]
        await share(bus)
        ids = await publish(bus, 10)
        assert len(ids) == 10
        print(await worker(bus, ["numbers.>"]))
        try:
            await bus.agents.get("nobody")
        except acb_sdk.NotFoundError as error:
            code: str = error.code
            print(code)


async def share(bus: acb_sdk.AsyncClient) -> None:
    scope: acb_sdk.ContextScope = "public"
    made: acb_sdk.SharedContext = await bus.contexts.share("typed/plan", {"n": 1}, scope=scope, ttl=60.0)
    changed: acb_sdk.UpdatedContext = await bus.contexts.update(made.id, "two", if_rev=made.rev, ttl=None)
    newest: acb_sdk.Context = await bus.contexts.modify("typed/plan", lambda context: context.text + "!")
    keys: list[str | None] = [context.key async for context in bus.contexts.list(key_prefix="typed/")]
    page: acb_sdk.ContextPage = await bus.contexts.list().page(10)
    revs: list[int] = [context.rev for context in await bus.contexts.history(made.id)]
    assert keys == ["typed/plan"] and page.revision >= newest.rev and revs == [newest.rev, changed.rev, made.rev]
    async with bus.contexts.watch(after=made.rev) as changes:
        event: acb_sdk.ContextEvent | None = await changes.next(timeout=10)
        assert event is not None and event.context is not None and event.kind == "updated"
    agents: acb_sdk.AsyncWatch[acb_sdk.AgentEvent] = bus.agents.watch(agent_id="typed")
    first: acb_sdk.AgentEvent | None = await agents.next(timeout=10)
    assert first is not None and first.agent_id == "typed"
    await agents.close()

    def progress(how_far: acb_sdk.Progress) -> None:
        assert how_far.total_bytes is None or how_far.done_bytes <= how_far.total_bytes

    up: acb_sdk.Uploaded = await bus.contexts.upload(io.BytesIO(b"typed"), key="typed/file", progress=progress)
    into = io.BytesIO()
    down: acb_sdk.Downloaded = await bus.contexts.download(up.context_id, into, progress=progress)
    assert down.sha256 == up.sha256 and into.getvalue() == await bus.contexts.download_bytes("typed/file")


def sync_main(endpoint: str, tenant: str) -> None:
    with acb_sdk.Client(endpoint, credentials=acb_sdk.Credentials.dev("typed", tenant=tenant)) as bus:
        receipt: acb_sdk.Receipt = bus.messages.publisher("x").publish(b"raw")
        published: acb_sdk.Published = receipt.result(timeout=10)
        contexts: acb_sdk.Contexts = bus.contexts
        plan: acb_sdk.Context = contexts.get("typed/plan")
        with contexts.watch(context_id=plan.id) as watch:
            kinds: list[str] = [event.kind for event in (watch.next(timeout=10), watch.next(timeout=10)) if event]
        assert kinds == ["state", "synced"] and contexts.upload(plan.payload).size == plan.size
        with bus.listen("numbers.>", start="all") as messages:
            first: acb_sdk.Message | None = messages.next(timeout=10)
            if first is not None:
                body: bytes = first.payload
                first.ack()
                print(published.duplicate, body.decode())


async def on_a_fake_bus() -> None:
    async with AsyncFakeBus(tenant="typed", settings={"delivery.durability_floor": "written"}) as bus:
        client: acb_sdk.AsyncClient = await bus.client("typed", options=acb_sdk.Options(max_pending=8))
        at: datetime = await bus.advance(1.5)
        way: Way = "up"
        line: Network = bus.network("typed")
        line.cut_after(way, 100)
        assert at == bus.now() and (await client.health()).serving and "acb_" in bus.metrics()
        key: str | None = bus.admin_key
        assert key is None
    with FakeBus() as other:
        plain: acb_sdk.Client = other.client("typed")
        assert plain.health().serving


if __name__ == "__main__":
    asyncio.run(on_a_fake_bus())
    asyncio.run(main(*sys.argv[1:3]))
    sync_main(*sys.argv[1:3])
