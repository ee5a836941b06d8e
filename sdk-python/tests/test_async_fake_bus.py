"""The fake bus through the whole of a face: its time, its ends, its networks, and what its clients do on it."""

from __future__ import annotations

import io
import os
from datetime import UTC, datetime, timedelta

import pytest

import acb_sdk
from acb_sdk.testing import AsyncFakeBus, Way

# Of real time: what is waited for is there at once, or it is a failure.
WITHIN = 20.0


async def test_a_lease_ends_when_the_test_says_so() -> None:
    async with AsyncFakeBus() as bus:
        worker = await bus.client("worker")
        await worker.agents.register("worker")
        planner = await bus.client("planner")
        await planner.messages.send("worker", "count me")
        began = bus.now()
        assert began == datetime(2026, 1, 1, tzinfo=UTC)
        async with worker.inbox() as inbox:
            message = await inbox.next(timeout=WITHIN)
            assert message is not None and message.attempt == 1
            # Until now no time has passed, however long it took.
            assert bus.now() == began
            assert await bus.advance(30) == began + timedelta(seconds=30)
            assert await bus.advance(1.0) == began + timedelta(seconds=31)
            again = await inbox.next(timeout=WITHIN)
            assert again is not None and (again.id, again.attempt) == (message.id, 2)
            await again.ack_confirmed(timeout=WITHIN)


async def test_kill_and_restart_lose_nothing_that_was_acknowledged() -> None:
    async with AsyncFakeBus() as bus:
        alice = await bus.client("alice")
        await alice.subscriptions.create("all", ["jobs.>"])
        for number in range(50):
            await alice.messages.publish("jobs.x", f"n{number}", durability="written")
        shared = await alice.contexts.share("plan", {"steps": 3})
        await bus.kill()
        assert not bus.is_running
        with pytest.raises(acb_sdk.ConflictError) as caught:
            bus.metrics()
        assert (caught.value.code, "restart" in caught.value.message) == ("invalid_state", True)
        await bus.kill()
        await bus.restart()
        assert bus.is_running
        # The client that was there has come back by itself, and a new one finds the same.
        bob = await bus.client("alice")
        for client in (alice, bob):
            assert (await client.contexts.get("plan")).id == shared.id
        async with bob.subscribe("all") as messages:
            found: list[str] = []
            while len(found) < 50:
                message = await messages.next(timeout=WITHIN)
                assert message is not None
                found.append(message.text)
                await message.ack()
        assert found == [f"n{number}" for number in range(50)]


async def test_a_bus_that_stops_in_order_keeps_everything() -> None:
    async with AsyncFakeBus() as bus:
        alice = await bus.client("alice")
        await alice.agents.register("alice")
        await bus.stop()
        assert not bus.is_running
        await bus.restart()
        assert (await alice.agents.get("alice")).id == "alice"


async def test_a_client_whose_connection_is_cut_comes_back_and_another_never_notices() -> None:
    async with AsyncFakeBus() as bus:
        bob = await bus.client("bob")
        alice = await bus.client("alice")
        await bob.agents.register("bob")
        bobs, alices = bob.events(), alice.events()
        async with bob.inbox() as inbox:
            bus.cut("bob")
            names: list[str] = []
            while "resumed" not in names:
                event = await bobs.next(timeout=WITHIN)
                assert event is not None
                names.append(event.name)
            assert [name for name in names if name != "connected"] == ["suspended", "resumed"]
            await alice.messages.send("bob", "after")
            message = await inbox.next(timeout=WITHIN)
            assert message is not None and message.text == "after"
            await message.ack_confirmed(timeout=WITHIN)
        with pytest.raises(acb_sdk.DeadlineExceededError):
            while (event := await alices.next(timeout=0.02)) is not None:
                assert event.name == "connected"


@pytest.mark.parametrize(("way", "size"), [("up", 1000), ("down", 10)])
async def test_publishes_cut_in_the_middle_are_stored_once_each_and_in_order(way: Way, size: int) -> None:
    async with AsyncFakeBus() as bus:
        reader = await bus.client("reader")
        await reader.subscriptions.create("all", ["cut.>"])
        alice = await bus.client("alice")
        events = alice.events()
        bus.network("alice").cut_after(way, size)
        stored = await alice.messages.publisher("cut.x").publish_many([b"%d" % n for n in range(300)], timeout=WITHIN)
        assert len(stored) == 300
        # That it is connected may have been said before anybody listened.
        names: list[str] = []
        while "suspended" not in names:
            event = await events.next(timeout=WITHIN)
            assert event is not None
            names.append(event.name)
        assert names in (["suspended"], ["connected", "suspended"])
        async with reader.subscribe("all", max_pending=400) as messages:
            found: list[int] = []
            while len(found) < 300:
                message = await messages.next(timeout=WITHIN)
                assert message is not None
                found.append(int(message.payload))
        assert found == list(range(300))


async def test_who_is_parted_stays_away_and_what_is_held_comes_when_it_is_let_go() -> None:
    async with AsyncFakeBus() as bus:
        line = bus.network("bob")
        line.part()
        with pytest.raises(acb_sdk.UnavailableError):
            await bus.client("bob", options=acb_sdk.Options(connect_timeout=0.05))
        line.mend()
        bob = await bus.client("bob")
        await bob.agents.register("bob")
        line.hold()
        with pytest.raises(acb_sdk.DeadlineExceededError):
            await bob.agents.get("bob", timeout=0.03)
        line.mend()
        assert (await bob.agents.get("bob", timeout=WITHIN)).id == "bob"
        with pytest.raises(acb_sdk.InvalidArgumentError) as caught:
            line.cut_after("sideways", 1)  # type: ignore[arg-type]
        assert caught.value.context["field"] == "way"


async def test_agents_are_discovered_contexts_shared_and_contents_streamed() -> None:
    content = os.urandom((1 << 20) + 7)
    async with AsyncFakeBus() as bus:
        worker, planner = await bus.client("worker"), await bus.client("planner")
        await worker.agents.register("worker", capabilities=["text.count"])
        found = [agent.id async for agent in planner.agents.discover(capabilities=["text.count"])]
        assert found == ["worker"]
        made = await planner.contexts.share("plan", {"n": 1}, scope="public")
        changed = await worker.contexts.get("plan")
        assert changed.json() == {"n": 1}
        with pytest.raises(acb_sdk.ConflictError) as caught:
            await planner.contexts.update(made.id, {"n": 2}, if_rev=made.rev + 1)
        assert caught.value.code == "revision_conflict"
        up = await planner.contexts.upload(content, key="archive", shares={"worker": "read"}, chunk_bytes=256 << 10)
        assert up.size == len(content)
        out = io.BytesIO()
        await worker.contexts.download("archive", out)
        assert out.getvalue() == content


async def test_tenants_are_apart() -> None:
    async with AsyncFakeBus(tenant="blue") as bus:
        here = await bus.client("bob")
        await here.agents.register("bob")
        elsewhere = await bus.client("bob", tenant="red")
        with pytest.raises(acb_sdk.NotFoundError):
            await elsewhere.agents.get("bob")
        also = await bus.client("carol", tenant="blue")
        assert (await also.agents.get("bob")).id == "bob"
        # Each has a way of its own.
        assert bus.network("bob") is bus.network("bob", tenant="blue")
        assert bus.network("bob") is not bus.network("bob", tenant="red")


async def test_a_bus_on_the_machines_time_cannot_be_moved() -> None:
    async with AsyncFakeBus(real_clock=True) as bus:
        assert bus.now() > datetime(2026, 1, 2, tzinfo=UTC)
        with pytest.raises(acb_sdk.ConflictError) as caught:
            await bus.advance(1)
        assert caught.value.code == "invalid_state"
        with pytest.raises(acb_sdk.ConflictError):
            bus.set_wall(datetime(2026, 1, 2, tzinfo=UTC))


async def test_the_wall_clock_stands_where_it_is_set() -> None:
    start = datetime(2031, 5, 6, 7, 8, 9, tzinfo=UTC)
    async with AsyncFakeBus(starting_at=start) as bus:
        assert bus.now() == start
        bus.set_wall(start - timedelta(days=1))
        assert bus.now() == start - timedelta(days=1)
        with pytest.raises(acb_sdk.InvalidArgumentError):
            await bus.advance(-1)
        await bus.restart()
        assert bus.now() == start - timedelta(days=1)


async def test_a_bus_that_asks_for_credentials_makes_an_admin_key() -> None:
    async with AsyncFakeBus(with_credentials=True) as bus:
        unknown = await bus.client("eve")
        with pytest.raises(acb_sdk.UnauthenticatedError):
            await unknown.agents.get("eve")
        key = bus.admin_key
        assert key is not None
        admin = await bus.client("admin", credentials=acb_sdk.Credentials.enrolment_key(key, "admin"))
        made = await admin.admin.create_enrolment_key("workers", agent_pattern="worker-*", roles=["agent-full"])
        credentials = acb_sdk.Credentials.enrolment_key(made.secret, "worker-1")
        worker = await bus.client("worker-1", credentials=credentials)
        assert (await worker.agents.register("worker-1")).id == "worker-1"
    async with AsyncFakeBus() as bus:
        assert bus.admin_key is None


async def test_settings_are_the_servers() -> None:
    async with AsyncFakeBus(settings={"delivery.durability_floor": "synced"}) as bus:
        alice = await bus.client("alice")
        with pytest.raises(acb_sdk.AcbError) as caught:
            await alice.messages.send("alice", "x", durability="memory")
        assert caught.value.code == "durability_unavailable"
        assert "acb_messages_in_total" in bus.metrics()
    wrong = AsyncFakeBus(settings={"delivery.durabilty_floor": "synced"})
    with pytest.raises(acb_sdk.InvalidArgumentError) as caught:
        await wrong.start()
    assert "durability_floor" in str(caught.value), "the answer names what was meant"


async def test_its_clients_are_closed_with_it_and_nothing_is_done_after_that() -> None:
    bus = AsyncFakeBus()
    with pytest.raises(acb_sdk.ConflictError) as early:
        await bus.client("alice")
    assert (early.value.code, "start()" in early.value.message) == ("invalid_state", True)
    assert await bus.start() is bus
    alice = await bus.client("alice", options=acb_sdk.Options(durability="memory"))
    await alice.agents.register("alice")
    assert await bus.start() is bus, "once more is no other bus"
    assert (await alice.messages.send("alice", "x", timeout=WITHIN)).durability == "memory"
    async with await bus.client("bob") as bob:
        await bob.agents.register("bob")
    assert alice.is_connected and not bob.is_connected
    line = bus.network("alice")
    await bus.close()
    await bus.close()
    assert not bus.is_running and not alice.is_connected
    assert repr(bus).endswith("of tenant default, closed>")
    with pytest.raises(acb_sdk.OperationCancelledError) as caught:
        _ = alice.agents
    assert caught.value.code == "client_closed"
    line.cut()
    for call in (
        lambda: bus.client("alice"), lambda: bus.advance(1), bus.kill, bus.stop, bus.restart, bus.start,
    ):
        with pytest.raises(acb_sdk.ConflictError) as late:
            await call()
        assert (late.value.code, late.value.message) == ("invalid_state", "the fake bus was closed")
    for ask in (bus.now, bus.metrics, lambda: bus.admin_key, lambda: bus.network("alice"), lambda: bus.cut("alice")):
        with pytest.raises(acb_sdk.ConflictError):
            ask()
