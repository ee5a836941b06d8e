"""The client itself: its nouns, its states, its end."""

from __future__ import annotations

import pytest

import acb_sdk


async def test_agents_are_registered_found_and_changed(async_face) -> None:
    async with async_face("alice") as alice:
        made = await alice.agents.register(
            "alice",
            type="planner",
            capabilities=["text.count", acb_sdk.Capability("code.review", version="1.2.0")],
            metadata={"team": "a"},
            groups=["g"],
        )
        assert (made.id, made.type, made.incarnation) == ("alice", "planner", 1)
        assert [c.name for c in made.capabilities] == ["code.review", "text.count"] or len(made.capabilities) == 2
        changed = await alice.agents.update("alice", description="plans", metadata={})
        assert (changed.description, changed.metadata, changed.type) == ("plans", {}, "planner")
        found = [a.id async for a in alice.agents.discover(capabilities=["text.count"], type="planner")]
        assert found == ["alice"]
        page = await alice.agents.discover(text="nobody like this").page(10)
        assert (page.items, page.next_token) == ([], None)
        assert await alice.agents.heartbeat() > 0
        assert alice.agent_id == "alice"
        await alice.agents.unregister("alice")
        with pytest.raises(acb_sdk.NotFoundError):
            await alice.agents.get("alice")


async def test_admins_make_keys_that_others_log_in_with(async_face, endpoint) -> None:
    async with async_face("root") as root:
        made = await root.admin.create_enrolment_key("workers", agent_pattern="worker-*", roles=["agent-full"], ttl=3600)
        assert made.secret not in repr(made)
        assert made.secret not in repr(acb_sdk.Credentials.enrolment_key(made.secret, "worker-1"))
        credentials = acb_sdk.Credentials.enrolment_key(made.secret, "worker-1")
        async with acb_sdk.AsyncClient(endpoint, credentials=credentials) as worker:
            identity = worker.identity
            assert identity is not None
            assert (identity.agent_id, identity.roles) == ("worker-1", ["agent-full"])
            fresh = await worker.auth.refresh()
            assert fresh.agent_id == "worker-1"
            tokens = worker.auth.tokens()
            assert tokens is not None and tokens.access_token not in repr(tokens)
            with pytest.raises(acb_sdk.PermissionDeniedError) as caught:
                await worker.admin.create_enrolment_key()
            assert isinstance(caught.value, PermissionError)
            assert "keys" in await worker.auth.jwks()
        assert [k.label for k in await root.admin.enrolment_keys()] == ["workers"]
        await root.admin.revoke_enrolment_key(made.key.id)
        with pytest.raises(acb_sdk.UnauthenticatedError):
            await acb_sdk.AsyncClient(endpoint, credentials=credentials).connect()
        secret = await root.admin.set_agent_secret("carol")
        assert secret


async def test_a_client_is_used_between_its_beginning_and_its_end(async_face) -> None:
    alice = async_face("alice")
    with pytest.raises(acb_sdk.ConflictError) as early:
        _ = alice.agents
    assert early.value.code == "invalid_state"
    await alice.connect()
    await alice.connect()
    assert alice.is_connected
    assert (await alice.health(timeout=10)).serving
    agents = alice.agents
    await alice.close()
    await alice.close()
    await alice.drain()
    assert not alice.is_connected
    for call in (lambda: agents.get("alice"), alice.connect, alice.health):
        with pytest.raises(acb_sdk.OperationCancelledError) as late:
            await call()
        assert late.value.code == "client_closed"


async def test_nobody_there_is_said_within_the_timeout() -> None:
    client = acb_sdk.AsyncClient("acb://127.0.0.1:9", options=acb_sdk.Options(connect_timeout=0.3))
    with pytest.raises(acb_sdk.UnavailableError):
        await client.connect()
    with pytest.raises(acb_sdk.InvalidArgumentError):
        await acb_sdk.AsyncClient("http://x").connect()
    with pytest.raises(acb_sdk.InvalidArgumentError):
        await acb_sdk.AsyncClient(options=acb_sdk.Options(publish_window_messages=0)).connect()
