"""The nouns of a client that are asked one call at a time: agents, subscriptions, dead letters, tokens, administration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

from ._async_watches import AsyncWatch
from ._options import given
from ._types import Capability, ms_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import datetime
    from typing import Self

    from ._native import Call, NativeClient, NativeEvents
    from ._payload import Payload
    from ._port import AsyncPort
    from ._types import (
        Agent,
        AgentActivity,
        AgentEvent,
        AgentStatus,
        ConnectionEvent,
        CreatedKey,
        CreatedSubscription,
        DeadLetter,
        DeadLetterPolicy,
        EnrolmentKey,
        Group,
        GroupMember,
        Identity,
        Page,
        SubscriptionInfo,
        Tenant,
        Tokens,
    )

T = TypeVar("T")
PAGE_SIZE_MAX = 500


class AsyncPages(Generic[T]):
    """A list, page by page behind one iterator. The next page is asked for when the one before is used up."""

    def __init__(self, port: AsyncPort, fetch: Callable[[int, str], Call[Page[T]]]) -> None:
        self._port = port
        self._fetch = fetch
        self._here: list[T] = []
        self._next: str | None = ""

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        while not self._here:
            if self._next is None:
                raise StopAsyncIteration
            page = await self.page(token=self._next)
            self._here, self._next = page.items[::-1], page.next_token
        return self._here.pop()

    async def all(self) -> list[T]:
        """Everything that is left, at once."""
        return [item async for item in self]

    async def page(self, size: int = PAGE_SIZE_MAX, token: str = "") -> Page[T]:
        """One page: 1 to 500 items, from the token of the page before."""
        return await self._port.run(self._fetch(size, token))


class AsyncEvents:
    """What happens to the connection, from now on. Who is more than 256 events behind loses the oldest."""

    def __init__(self, port: AsyncPort, events: NativeEvents) -> None:
        self._port = port
        self._events = events

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ConnectionEvent:
        event = await self.next()
        if event is None:
            raise StopAsyncIteration
        return event

    async def next(self, *, timeout: float | None = None) -> ConnectionEvent | None:
        """The next event; ``None`` when the client is gone."""
        return await self._port.run(self._events.next(timeout))


def _capabilities(given_ones: Iterable[str | Capability] | None) -> list[dict[str, str]] | None:
    if given_ones is None:
        return None
    out: list[dict[str, str]] = []
    for one in given_ones:
        c = Capability(one) if isinstance(one, str) else one
        out.append(
            {
                "name": c.name,
                "version": c.version,
                "input_schema": c.input_schema,
                "output_schema": c.output_schema,
            }
        )
    return out


class AsyncAgents:
    """Agents: who is on the bus, and what they can do."""

    def __init__(self, native: NativeClient, port: AsyncPort) -> None:
        self._native = native
        self._port = port

    async def register(
        self,
        agent_id: str,
        *,
        type: str | None = None,
        name: str | None = None,
        description: str | None = None,
        version: str | None = None,
        location: str | None = None,
        capabilities: Iterable[str | Capability] | None = None,
        endpoint: str | None = None,
        groups: Sequence[str] | None = None,
        metadata: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> Agent:
        """Puts this client's agent on the bus and makes its inbox. From then on the client keeps it online.

        Again by the same credential it is a new incarnation, and the older session is fenced.
        """
        fields = given(
            type=type,
            name=name,
            description=description,
            version=version,
            location=location,
            capabilities=_capabilities(capabilities),
            endpoint=endpoint,
            groups=list(groups) if groups is not None else None,
            metadata=dict(metadata) if metadata is not None else None,
        )
        return await self._port.run(self._native.agents_register(agent_id, fields or {}, timeout))

    async def get(self, agent_id: str, *, timeout: float | None = None) -> Agent:
        """Shows one agent. Raises ``agent_not_found``."""
        return await self._port.run(self._native.agents_get(agent_id, timeout))

    async def update(
        self,
        agent_id: str,
        *,
        type: str | None = None,
        name: str | None = None,
        description: str | None = None,
        version: str | None = None,
        location: str | None = None,
        capabilities: Iterable[str | Capability] | None = None,
        endpoint: str | None = None,
        groups: Sequence[str] | None = None,
        metadata: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> Agent:
        """Changes what is given, and only that; a list or mapping replaces the one that is there."""
        fields = given(
            type=type,
            name=name,
            description=description,
            version=version,
            location=location,
            capabilities=_capabilities(capabilities),
            endpoint=endpoint,
            groups=list(groups) if groups is not None else None,
            metadata=dict(metadata) if metadata is not None else None,
        )
        return await self._port.run(self._native.agents_update(agent_id, fields or {}, timeout))

    async def unregister(self, agent_id: str, *, keep_inbox: bool = False, timeout: float | None = None) -> None:
        """Takes an agent off the bus, with its subscriptions and its inbox unless that is kept."""
        await self._port.run(self._native.agents_unregister(agent_id, keep_inbox, timeout))

    async def heartbeat(self, *, timeout: float | None = None) -> float:
        """Says that the agent is alive; gives in how many seconds the next is due. The client does this by itself."""
        return await self._port.run(self._native.agents_heartbeat(timeout))

    def discover(
        self,
        *,
        type: str | None = None,
        location: str | None = None,
        capabilities: Sequence[str] | None = None,
        any_capability: Sequence[str] | None = None,
        status: AgentStatus | None = None,
        metadata: Mapping[str, str] | None = None,
        text: str | None = None,
        timeout: float | None = None,
    ) -> AsyncPages[Agent]:
        """Searches. All conditions must hold; ``capabilities`` must all be there, of ``any_capability`` one."""
        query = given(
            type=type,
            location=location,
            capabilities=list(capabilities) if capabilities is not None else None,
            any_capability=list(any_capability) if any_capability is not None else None,
            status=status,
            metadata=dict(metadata) if metadata is not None else None,
            text=text,
        )
        return AsyncPages(
            self._port, lambda size, token: self._native.agents_page(query or {}, size, token, timeout)
        )

    async def set_activity(
        self, activity: AgentActivity, *, ttl: float | None = None, timeout: float | None = None
    ) -> None:
        """Says what this client's agent is doing, for ``ttl`` seconds (1 to 3,600; the server's default without it).

        Others see it until the agent says otherwise or its word is too old. Raises ``agent_not_found`` when this client
        registered none.
        """
        await self._port.run(self._native.agents_set_activity({"activity": activity}, ttl, timeout))

    def watch(
        self,
        *,
        agent_id: str | None = None,
        type: str | None = None,
        location: str | None = None,
        capabilities: Sequence[str] | None = None,
        after: int | None = None,
        timeout: float | None = None,
    ) -> AsyncWatch[AgentEvent]:
        """Watches agents: who is there, then who comes, changes and leaves, and presence and activity as they change, over
        any number of broken connections. All conditions must hold.

        ``after`` begins with the changes after a revision that an earlier watch told; presence has no history, and comes
        for every agent that matches as it is now.
        """
        query = given(
            id=agent_id,
            type=type,
            location=location,
            capabilities=list(capabilities) if capabilities is not None else None,
            after=after,
        )
        return AsyncWatch(self._port, lambda: self._native.agents_watch(query or {}, timeout), after)


def definition(
    ack_wait: float | None,
    retry_schedule: Sequence[float] | None,
    max_attempts: int | None,
    dead_letters: DeadLetterPolicy | None,
    max_leased: int | None,
    start: str | int | datetime | None,
) -> dict[str, object]:
    """The rules of a subscription, as the border takes them."""
    out = given(
        ack_wait=ack_wait,
        retry_schedule=list(retry_schedule) if retry_schedule is not None else None,
        max_attempts=max_attempts,
        dead_letters=dead_letters,
        max_leased=max_leased,
    ) or {}
    if isinstance(start, bool) or start is None:
        return out
    if isinstance(start, str):
        out["start"] = start
    elif isinstance(start, int):
        out["start_seq"] = start
    else:
        out["start_time_ms"] = ms_of(start)
    return out


class AsyncSubscriptions:
    """Durable subscriptions: what they hear and how they deliver."""

    def __init__(self, native: NativeClient, port: AsyncPort) -> None:
        self._native = native
        self._port = port

    async def create(
        self,
        name: str,
        filters: Sequence[str] | str,
        *,
        ack_wait: float | None = None,
        retry_schedule: Sequence[float] | None = None,
        max_attempts: int | None = None,
        dead_letters: DeadLetterPolicy | None = None,
        max_leased: int | None = None,
        start: str | int | datetime | None = None,
        timeout: float | None = None,
    ) -> CreatedSubscription:
        """Makes a durable subscription; the same definition again gives the one that is there.

        ``filters`` are patterns of dot tokens: ``*`` is one token, a last ``>`` one or more. ``start`` is ``"new"`` (the
        default), ``"all"``, a seq or a time. Spans are seconds.
        """
        patterns = [filters] if isinstance(filters, str) else list(filters)
        rules = definition(ack_wait, retry_schedule, max_attempts, dead_letters, max_leased, start)
        return await self._port.run(self._native.subscriptions_create(name, patterns, rules, timeout))

    async def get(self, name: str, *, timeout: float | None = None) -> SubscriptionInfo:
        """Shows one with its counts. Raises ``subscription_not_found``."""
        return await self._port.run(self._native.subscriptions_get(name, timeout))

    def list(self, *, timeout: float | None = None) -> AsyncPages[SubscriptionInfo]:
        """All of the tenant, by name."""
        return AsyncPages(self._port, lambda size, token: self._native.subscriptions_page(size, token, timeout))

    async def delete(self, name: str, *, timeout: float | None = None) -> None:
        """Ends one; its dead letters stay. Deleting what is absent succeeds."""
        await self._port.run(self._native.subscriptions_delete(name, timeout))


class AsyncDeadLetters:
    """Dead letters: messages that a subscription gave up on, whole and with the reason."""

    def __init__(self, native: NativeClient, port: AsyncPort) -> None:
        self._native = native
        self._port = port

    def list(self, subscription: str, *, timeout: float | None = None) -> AsyncPages[DeadLetter]:
        """A subscription's, oldest first, without payloads."""
        return AsyncPages(
            self._port, lambda size, token: self._native.dead_letters_page(subscription, size, token, timeout)
        )

    async def get(self, dead_letter_id: str, *, timeout: float | None = None) -> DeadLetter:
        """Shows one, whole. Raises ``dead_letter_not_found``."""
        return await self._port.run(self._native.dead_letters_get(dead_letter_id, timeout))

    async def redrive(
        self, dead_letter_id: str, *, payload: Payload = None, timeout: float | None = None
    ) -> str:
        """Gives one to its subscription again, with another payload when one is given. Gives the new message's id."""
        from ._payload import encode

        body = None if payload is None else encode(payload)[0]
        return await self._port.run(self._native.dead_letters_redrive(dead_letter_id, body, timeout))

    async def discard(self, dead_letter_id: str, *, timeout: float | None = None) -> None:
        """Takes one off the list for good. Discarding what is absent succeeds."""
        await self._port.run(self._native.dead_letters_discard(dead_letter_id, timeout))


class AsyncAuth:
    """The client's own tokens. Login and refresh happen by themselves; these are for those who want a hand in it."""

    def __init__(self, native: NativeClient, port: AsyncPort) -> None:
        self._native = native
        self._port = port

    def tokens(self) -> Tokens | None:
        """Tokens as they are now. The refresh token works once: whoever takes it must close this client first."""
        return self._native.auth_tokens()

    async def refresh(self, *, timeout: float | None = None) -> Identity:
        """Gets fresh tokens now, and hands them to the open streams."""
        return await self._port.run(self._native.auth_refresh(timeout))

    async def logout(self, *, timeout: float | None = None) -> None:
        """Ends this client's tokens and all that came of the same login."""
        await self._port.run(self._native.auth_logout(timeout))

    async def jwks(self, *, timeout: float | None = None) -> str:
        """The public keys of tokens as a JSON Web Key Set."""
        return await self._port.run(self._native.auth_jwks(timeout))


class AsyncAdmin:
    """Tenants, enrolment keys and secrets. Every call needs the role admin."""

    def __init__(self, native: NativeClient, port: AsyncPort) -> None:
        self._native = native
        self._port = port

    async def create_tenant(self, tenant_id: str, name: str = "", *, timeout: float | None = None) -> Tenant:
        """Makes a tenant with its logs."""
        return await self._port.run(self._native.admin_create_tenant(tenant_id, name, timeout))

    async def tenants(self, *, timeout: float | None = None) -> list[Tenant]:
        """All tenants, by id."""
        return await self._port.run(self._native.admin_tenants(timeout))

    async def create_enrolment_key(
        self,
        label: str = "",
        *,
        tenant: str | None = None,
        agent_pattern: str | None = None,
        roles: Sequence[str] | None = None,
        ttl: float | None = None,
        timeout: float | None = None,
    ) -> CreatedKey:
        """Makes an enrolment key and shows it this once."""
        fields = given(
            tenant=tenant, agent_pattern=agent_pattern, roles=list(roles) if roles is not None else None, ttl=ttl
        )
        return await self._port.run(self._native.admin_create_enrolment_key(label, fields or {}, timeout))

    async def enrolment_keys(self, *, timeout: float | None = None) -> list[EnrolmentKey]:
        """The tenant's enrolment keys, oldest first, without their secrets."""
        return await self._port.run(self._native.admin_enrolment_keys(timeout))

    async def revoke_enrolment_key(self, key_id: str, *, timeout: float | None = None) -> None:
        """Ends a key and all tokens that came of it. Revoking what is absent succeeds."""
        await self._port.run(self._native.admin_revoke_enrolment_key(key_id, timeout))

    async def set_agent_secret(
        self, agent_id: str, *, roles: Sequence[str] = (), timeout: float | None = None
    ) -> str:
        """Gives an agent a new secret, shows it this once, and ends tokens of the old one."""
        return await self._port.run(self._native.admin_set_agent_secret(agent_id, list(roles), timeout))

    async def rotate_signing_key(self, *, timeout: float | None = None) -> str:
        """Makes a new signing key and gives its id; tokens of the old one stay good until they end."""
        return await self._port.run(self._native.admin_rotate_signing_key(timeout))

    async def create_group(self, name: str, description: str = "", *, timeout: float | None = None) -> Group:
        """Makes a group, or finds the one of the same description. Raises ``group_exists`` for another description."""
        return await self._port.run(self._native.admin_create_group(name, description, timeout))

    async def delete_group(self, name: str, *, timeout: float | None = None) -> None:
        """Ends a group and takes everybody out of it. Contexts keep its name. Deleting what is absent succeeds."""
        await self._port.run(self._native.admin_delete_group(name, timeout))

    async def groups(self, *, timeout: float | None = None) -> list[Group]:
        """The tenant's groups, by name."""
        return await self._port.run(self._native.admin_groups(timeout))

    async def add_group_members(
        self, name: str, agents: Sequence[str], *, timeout: float | None = None
    ) -> Group:
        """Puts agents into a group, all or none of them; at most 500. Who is in it stays. Raises ``group_not_found``."""
        return await self._port.run(self._native.admin_add_group_members(name, list(agents), timeout))

    async def remove_group_members(
        self, name: str, agents: Sequence[str], *, timeout: float | None = None
    ) -> Group:
        """Takes agents out of a group; at most 500. Taking out who is not in it succeeds."""
        return await self._port.run(self._native.admin_remove_group_members(name, list(agents), timeout))

    async def group_members(self, name: str, *, timeout: float | None = None) -> list[GroupMember]:
        """The agents of a group, by id. Raises ``group_not_found``."""
        return await self._port.run(self._native.admin_group_members(name, timeout))
