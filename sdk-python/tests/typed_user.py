"""What a user with strict types writes. Checked by mypy and pyright, and run."""

from __future__ import annotations

import asyncio
import sys

import acb_sdk


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
        ids = await publish(bus, 10)
        assert len(ids) == 10
        print(await worker(bus, ["numbers.>"]))
        try:
            await bus.agents.get("nobody")
        except acb_sdk.NotFoundError as error:
            code: str = error.code
            print(code)


def sync_main(endpoint: str, tenant: str) -> None:
    with acb_sdk.Client(endpoint, credentials=acb_sdk.Credentials.dev("typed", tenant=tenant)) as bus:
        receipt: acb_sdk.Receipt = bus.messages.publisher("x").publish(b"raw")
        published: acb_sdk.Published = receipt.result(timeout=10)
        with bus.listen("numbers.>", start="all") as messages:
            first: acb_sdk.Message | None = messages.next(timeout=10)
            if first is not None:
                body: bytes = first.payload
                first.ack()
                print(published.duplicate, body.decode())


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:3]))
    sync_main(*sys.argv[1:3])
