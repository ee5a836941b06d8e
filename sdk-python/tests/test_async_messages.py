"""Messages out and in, through the whole of a face."""

from __future__ import annotations

import pytest

import acb_sdk


async def test_a_message_goes_to_an_inbox_and_is_settled(async_face) -> None:
    async with async_face("alice") as alice, async_face("bob") as bob:
        await bob.agents.register("bob")
        sent = await alice.messages.send("bob", {"text": "hello"}, attributes={"lang": "en"}, correlation_id="c-1")
        assert sent.durability == "synced"
        assert not sent.duplicate
        async with bob.inbox() as messages:
            message = await messages.next(timeout=10)
            assert message is not None
            assert message.id == sent.id
            assert message.json() == {"text": "hello"}
            assert message.content_type == "application/json"
            assert message.attributes == {"lang": "en"}
            assert (message.from_agent, message.correlation_id, message.attempt) == ("alice", "c-1", 1)
            assert message.stored_at is not None and message.stored_at.tzinfo is not None
            await message.ack_confirmed(timeout=10)
        status = await alice.messages.status(sent.id)
        assert [(s.subscription, s.state) for s in status.subscriptions] == [("$inbox.bob", "acked")]


async def test_topics_reach_those_who_listen(async_face) -> None:
    async with async_face("alice") as alice, async_face("bob") as bob:
        async with bob.listen("news.*", "sport.>") as messages:
            for topic in ("news.today", "news.to.day", "sport.a.b", "other"):
                await alice.messages.publish(topic, topic, durability="written")
            batch = []
            while len(batch) < 2:
                batch += await messages.next_batch(timeout=10)
            assert sorted(m.text for m in batch) == ["news.today", "sport.a.b"]
            for message in batch:
                await message.ack()


async def test_a_durable_subscription_keeps_what_was_not_acknowledged(async_face) -> None:
    async with async_face("alice") as alice:
        created = await alice.subscriptions.create("jobs", ["jobs.>"], ack_wait=60, max_attempts=3, retry_schedule=[1])
        assert not created.existed
        again = await alice.subscriptions.create("jobs", ["jobs.>"], ack_wait=60, max_attempts=3, retry_schedule=[1])
        assert again.existed
        for number in range(3):
            await alice.messages.publish("jobs.x", f"n{number}", durability="written")
        async with alice.subscribe("jobs") as messages:
            first = await messages.next(timeout=10)
            assert first is not None and first.text == "n0"
            await first.ack()
        async with alice.subscribe("jobs") as messages:
            rest = []
            while len(rest) < 2:
                rest += await messages.next_batch(timeout=10)
            assert [m.text for m in rest] == ["n1", "n2"]
            assert {m.attempt for m in rest} == {1}, "what was only read does not count as an attempt"
        names = [s.name async for s in alice.subscriptions.list()]
        assert names == ["jobs"]
        await alice.subscriptions.delete("jobs")
        with pytest.raises(acb_sdk.NotFoundError) as caught:
            await alice.subscriptions.get("jobs")
        assert caught.value.code == "subscription_not_found"


async def test_what_is_given_up_is_a_dead_letter_with_its_reason(async_face) -> None:
    async with async_face("alice") as alice:
        await alice.subscriptions.create("poison", "poison.x")
        sent = await alice.messages.publish("poison.x", b"\xff\x00")
        async with alice.subscribe("poison") as messages:
            message = await messages.next(timeout=10)
            assert message is not None
            with pytest.raises(acb_sdk.InvalidArgumentError) as caught:
                _ = message.text
            assert caught.value.code == "invalid_utf8"
            await message.term("cannot be read")
        letters = []
        while not letters:
            letters = await alice.dead_letters.list("poison").all()
        assert [(d.message_id, d.reason, d.last_error) for d in letters] == [(sent.id, "terminated", "cannot be read")]
        assert letters[0].payload is None
        whole = await alice.dead_letters.get(letters[0].id)
        assert whole.payload == b"\xff\x00"
        again = await alice.dead_letters.redrive(letters[0].id, payload="mended")
        async with alice.subscribe("poison") as messages:
            message = await messages.next(timeout=10)
            assert message is not None
            assert (message.id, message.text, message.original_topic) == (again, "mended", "poison.x")
            await message.ack_confirmed()
        assert await alice.dead_letters.list("poison").all() == []


async def test_a_request_has_its_reply(async_face) -> None:
    async with async_face("alice") as alice, async_face("bob") as bob:
        await alice.agents.register("alice")
        await bob.agents.register("bob")
        with pytest.raises(acb_sdk.UnavailableError) as caught:
            await alice.messages.request("bob", "anybody?", timeout=10)
        assert caught.value.code == "no_responders"
        assert isinstance(caught.value, ConnectionError)


async def test_a_publisher_gives_receipts(async_face) -> None:
    async with async_face("alice", publish_window_messages=64) as alice:
        publisher = alice.messages.publisher("many.x", durability="written", attributes={"a": "b"})
        receipts = [await publisher.publish(f"n{number}") for number in range(500)]
        seqs = [(await receipt.result(timeout=10)).seq for receipt in receipts]
        assert seqs == list(range(seqs[0], seqs[0] + 500)), "in the order in which they were queued"
        assert all(receipt.done for receipt in receipts)
        stored = await publisher.publish_many([b"x"] * 300, timeout=20)
        assert [p.seq for p in stored] == list(range(seqs[-1] + 1, seqs[-1] + 301))
        await alice.messages.flush(timeout=10)
        assert alice.messages.unacknowledged == 0


async def test_a_key_makes_a_repeat_harmless(async_face) -> None:
    async with async_face("alice") as alice:
        key = acb_sdk.new_idempotency_key()
        first = await alice.messages.publish("keyed.x", "one", idempotency_key=key)
        again = await alice.messages.publish("keyed.x", "one", idempotency_key=key)
        assert (again.id, again.duplicate) == (first.id, True)
        with pytest.raises(acb_sdk.ConflictError) as caught:
            await alice.messages.publish("keyed.x", "two", idempotency_key=key)
        assert caught.value.code == "idempotency_conflict"


async def test_errors_say_what_and_how_much(async_face) -> None:
    async with async_face("alice") as alice:
        with pytest.raises(acb_sdk.InvalidArgumentError) as caught:
            await alice.messages.publish("big.x", b"x" * 1_048_577)
        error = caught.value
        assert (error.code, error.kind, error.retryable) == ("payload_too_large", "invalid_argument", False)
        assert error.context["limit"] == "1048576"
        assert isinstance(error, ValueError)
        assert str(error) == "messages.publish: payload of 1048577 bytes exceeds limit of 1048576"
        assert error.hint
        for call, code in (
            (lambda: alice.messages.publish("a..b", "x"), "invalid_topic"),
            (lambda: alice.messages.publish("a.*", "x"), "wildcard_in_publish"),
            (lambda: alice.messages.publish("a.b", "x", durability="forever"), "invalid_argument"),
            (lambda: alice.messages.publish("a.b", "x", attributes={"a": 1}), "invalid_argument"),
            (lambda: alice.messages.publish("a.b", object()), "invalid_argument"),
            (lambda: alice.messages.publish("a.b", "x", timeout=-1), "invalid_argument"),
            (lambda: alice.messages.send("No Name", "x"), "invalid_name"),
            (lambda: alice.messages.send("nobody", "x"), "agent_not_found"),
            (lambda: alice.messages.status("nonsense"), "invalid_position"),
            (lambda: alice.agents.get("nobody"), "agent_not_found"),
            (lambda: alice.subscribe("missing").open(), "subscription_not_found"),
            (lambda: alice.listen("a..b").open(), "invalid_filter"),
        ):
            with pytest.raises(acb_sdk.AcbError) as caught:
                await call()
            assert caught.value.code == code, caught.value
