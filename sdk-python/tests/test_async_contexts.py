"""Contexts: shared, changed by those who may, watched."""

from __future__ import annotations

import pytest

import acb_sdk


async def test_a_context_is_shared_read_changed_and_deleted(async_face) -> None:
    async with async_face("alice") as alice, async_face("bob") as bob:
        made = await alice.contexts.share(
            "plans/a",
            {"step": 1},
            type="plan",
            shares={"bob": "write"},
            labels=["draft"],
            metadata={"k": "v"},
            description="the plan",
            ttl=3600.0,
        )
        assert (made.existed, made.key, made.owner, made.scope, made.version) == (
            False, "plans/a", "alice", "shared", "0.1.0",
        )
        assert (made.content_type, made.ttl, made.shares) == ("application/json", 3600.0, {"bob": "write"})
        read = await bob.contexts.get("plans/a")
        assert (read.json(), read.text, read.rev, read.size) == ({"step": 1}, '{"step":1}', made.rev, 10)
        assert len(read.sha256) == 64 and read.sha256 == made.sha256
        assert (await bob.contexts.get(made.id, payload=False)).payload == b""

        changed = await bob.contexts.update(made.id, {"step": 2}, if_rev=made.rev, ttl=None)
        assert (changed.updated_by, changed.version, changed.duplicate, changed.ttl) == ("bob", "0.1.1", False, None)
        assert changed.labels == ["draft"], "what is not given stays"
        with pytest.raises(acb_sdk.ConflictError) as late:
            await alice.contexts.update(made.id, "x", if_rev=made.rev)
        assert (late.value.code, late.value.context["rev"]) == ("revision_conflict", str(changed.rev))
        with pytest.raises(acb_sdk.InvalidArgumentError) as unsaid:
            await alice.contexts.update(made.id, "x")
        assert unsaid.value.code == "missing_field"
        with pytest.raises(acb_sdk.PermissionDeniedError):
            await bob.contexts.delete(made.id, force=True)

        assert [c.rev for c in await alice.contexts.history(made.id)] == [changed.rev, made.rev]
        assert (await alice.contexts.get(made.id, at_rev=made.rev)).json() == {"step": 1}
        end = await alice.contexts.renew(made.id, 60.0)
        assert end is not None and end.tzinfo is not None
        assert await alice.contexts.renew(made.id, None) is None
        marker = await alice.contexts.delete(made.id, if_rev=changed.rev)
        assert marker is not None and marker > changed.rev
        assert await alice.contexts.delete("0194f0c1-7b1e-7c3a-9d2f-5a6b7c8d9e0f", force=True) is None
        with pytest.raises(acb_sdk.NotFoundError):
            await alice.contexts.get("plans/a")


async def test_wrong_words_are_refused_by_name(async_face) -> None:
    async with async_face("alice") as alice:
        for options, field in (({"scope": "everyone"}, "scope"), ({"shares": {"bob": "own"}}, "shares")):
            with pytest.raises(acb_sdk.InvalidArgumentError) as wrong:
                await alice.contexts.share("k", "x", **options)
            assert wrong.value.context["field"] == field


async def test_lists_are_filtered_and_tell_their_revision(async_face) -> None:
    async with async_face("alice") as alice:
        for number in range(3):
            await alice.contexts.share(f"plans/{number}", "x", type="plan", labels=["hot"])
        await alice.contexts.share("notes/1", "x", type="note")
        found = [c.key async for c in alice.contexts.list(key_prefix="plans/", labels=["hot"])]
        assert found == ["plans/0", "plans/1", "plans/2"]
        page = await alice.contexts.list(owner="alice").page(2)
        assert ([c.key for c in page.items], page.next_token is not None) == (["plans/0", "plans/1"], True)
        newer = await alice.contexts.share("notes/2", "x")
        assert newer.rev > page.revision


async def test_modify_begins_anew_when_somebody_was_faster(async_face) -> None:
    async with async_face("alice") as alice, async_face("bob") as bob:
        made = await alice.contexts.share("counter", "0", shares={"bob": "write"})
        tries: list[str] = []

        def add(context: acb_sdk.Context) -> str:
            tries.append(context.text)
            return str(int(context.text) + 1)

        # Between the two reads of bob, alice writes: only then the revision that he got is old.
        reads = bob.contexts
        get = reads.get

        async def get_then_lose(which: str, **options: object) -> acb_sdk.Context:
            found = await get(which, **options)
            if len(tries) == 0:
                await alice.contexts.update(made.id, "10", if_rev=found.rev)
            return found

        reads.get = get_then_lose
        changed = await reads.modify("counter", add)
        assert (tries, changed.version) == (["0", "10"], "0.1.2")
        assert (await alice.contexts.get("counter")).text == "11"
        assert (await bob.contexts.modify("counter", lambda _: None)).rev == changed.rev


async def test_a_watch_brings_the_state_then_changes_and_resumes(async_face) -> None:
    async with async_face("alice") as alice, async_face("bob") as bob:
        first = await alice.contexts.share("one", "1", scope="public")
        async with bob.contexts.watch(payloads_up_to=64) as watch:
            state, synced = await watch.next(timeout=10), await watch.next(timeout=10)
            assert state is not None and state.context is not None and synced is not None
            assert (state.kind, state.context.key, state.context.payload) == ("state", "one", b"1")
            assert (synced.kind, synced.context, synced.revision) == ("synced", None, watch.revision)
            with pytest.raises(TimeoutError):
                await watch.next(timeout=0.01)
            changed = await alice.contexts.update(first.id, "2", if_rev=first.rev)
            update = await watch.next(timeout=10)
            assert update is not None and update.context is not None
            assert (update.kind, update.context.text, update.context.rev) == ("updated", "2", changed.rev)
            seen = watch.revision
            assert seen >= changed.rev
        assert await watch.next() is None, "it was left"
        await alice.contexts.share("two", "x", scope="public")
        await alice.contexts.delete(first.id, force=True)
        kinds: list[tuple[str, str | None]] = []
        async with bob.contexts.watch(after=seen) as later:
            async for event in later:
                assert event.context is not None
                kinds.append((event.kind, event.context.key))
                if len(kinds) == 2:
                    break
        assert kinds == [("created", "two"), ("deleted", "one")]
        with pytest.raises(acb_sdk.AcbError) as gap:
            await bob.contexts.watch(after=seen + 1_000_000).open()
        assert gap.value.code == "revision_gap"


async def test_a_watch_gives_each_of_many_changes_once_and_in_order(async_face) -> None:
    async with async_face("alice") as alice, async_face("bob") as bob:
        async with bob.contexts.watch(key_prefix="many/") as watch:
            first = await watch.next(timeout=10)
            assert first is not None and first.kind == "synced"
            revs = [(await alice.contexts.share(f"many/{n}", "x", scope="public")).rev for n in range(300)]
            seen: list[int] = []
            while len(seen) < len(revs):
                event = await watch.next(timeout=10)
                assert event is not None and event.context is not None
                seen.append(event.context.rev)
            assert seen == revs
            assert watch.next_here() is None


async def test_groups_open_contexts_to_their_members(async_face) -> None:
    async with async_face("root") as root, async_face("bob") as bob:
        group = await root.admin.create_group("blue", "the blue")
        assert (group.name, group.members) == ("blue", 0)
        assert (await root.admin.add_group_members("blue", ["bob"])).members == 1
        await root.contexts.share("plan", "x", groups=["blue"])
        assert (await bob.contexts.get("plan")).scope == "group"
        assert [m.agent_id for m in await root.admin.group_members("blue")] == ["bob"]
        assert (await root.admin.remove_group_members("blue", ["bob"])).members == 0
        with pytest.raises(acb_sdk.NotFoundError):
            await bob.contexts.get("plan")
        assert [g.name for g in await root.admin.groups()] == ["blue"]
        await root.admin.delete_group("blue")
        assert await root.admin.groups() == []


async def test_agents_are_watched_and_say_what_they_do(async_face) -> None:
    async with async_face("root") as root, async_face("bob") as bob:
        with pytest.raises(acb_sdk.NotFoundError):
            await bob.agents.set_activity("busy")
        await bob.agents.register("bob", type="worker")
        async with root.agents.watch(type="worker") as watch:
            state = await watch.next(timeout=10)
            assert state is not None and state.agent is not None
            assert (state.kind, state.agent_id, state.agent.activity) == ("state", "bob", None)
            await bob.agents.set_activity("busy", ttl=60.0)
            while True:
                event = await watch.next(timeout=10)
                assert event is not None
                if event.agent is not None and event.agent.activity is not None:
                    break
            assert (event.kind, event.agent.activity) == ("presence", "busy")
            assert event.agent.activity_until is not None
            await bob.agents.unregister("bob")
            while event is not None and event.kind != "left":
                event = await watch.next(timeout=10)
            assert event is not None and (event.agent_id, event.agent) == ("bob", None)
