"""One agent of a scenario. Each verb is a call of the client, and its result in the wire contract's words."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from async_bus import AsyncBusActor, connected
from async_uploads import AsyncUploads
from shapes import (
    Args,
    BadScenarioError,
    EndedError,
    NoAnswerError,
    capability,
    ms,
    ms_of,
    payload_of,
    shape_agent,
    shape_context,
    shape_dead_letter,
    shape_key,
    shape_message,
    shape_published,
    shape_subscription,
)

import acb_sdk


class Session:
    """An open subscription and what came of it."""

    def __init__(self, subscription: acb_sdk.AsyncSubscription, messages: int, size: int) -> None:
        self.subscription = subscription
        self.credit = (messages, size)
        self.received: dict[int, acb_sdk.AsyncMessage] = {}
        self.last: acb_sdk.AsyncMessage | None = None
        self.count = 0


class AsyncActor(AsyncUploads):
    """One agent over the installed client."""

    def __init__(
        self,
        background: Callable[[Callable[[], Any]], Any],
        blocking: Callable[[Callable[[], None]], Any],
        fake: AsyncBusActor | None = None,
    ) -> None:
        super().__init__()
        self.fake = fake
        self.background = background
        self.blocking = blocking
        self.endpoint = ""
        self.tenant = ""
        self.agent = ""
        self.patience = 15.0
        self.credentials: acb_sdk.Credentials | None = None
        self.connecting: acb_sdk.Options | None = None
        self.held: acb_sdk.AsyncClient | None = None
        self.sessions: dict[str, Session] = {}
        self.watches: dict[str, acb_sdk.AsyncWatch[acb_sdk.ContextEvent]] = {}
        self.agent_watches: dict[str, acb_sdk.AsyncWatch[acb_sdk.AgentEvent]] = {}
        self.pending: dict[str, Any] = {}
        self.last_request = ""

    async def call(self, verb: str, args: Args) -> Any:
        """Does what a verb says."""
        method = getattr(self, f"do_{verb}", None)
        if method is None:
            raise BadScenarioError(f"the Python client has nothing for {verb}")
        return await method(args)

    async def client(self) -> acb_sdk.AsyncClient:
        if self.held is None:
            credentials = self.credentials or acb_sdk.Credentials.dev(self.agent, tenant=self.tenant)
            who = (self.tenant, self.agent)
            self.held = await connected(self.fake, self.endpoint, who, credentials, self.connecting)
        return self.held

    async def hang_up(self) -> None:
        for session in self.sessions.values():
            await session.subscription.close()
        self.sessions.clear()
        for watch in [*self.watches.values(), *self.agent_watches.values()]:
            await watch.close()
        self.watches.clear()
        self.agent_watches.clear()
        held, self.held = self.held, None
        if held is not None:
            await held.close()
        for pending in self.pending.values():
            if hasattr(pending, "cancel"):
                pending.cancel()
        self.pending.clear()
        self.let_uploads_go()

    async def do_place(self, args: Args) -> None:
        self.endpoint, self.tenant, self.agent = args["endpoint"], args["tenant"], args["agent"]
        self.patience = args["patience"]

    async def do_forget(self, _: Args) -> None:
        await self.hang_up()

    async def do_close(self, _: Args) -> None:
        await self.hang_up()

    def credentials_of(self, args: Args) -> acb_sdk.Credentials:
        agent, tenant = args.get("agent", self.agent), args.get("tenant", self.tenant)
        if "key" in args:
            return acb_sdk.Credentials.enrolment_key(args["key"], agent)
        if "secret" in args:
            return acb_sdk.Credentials.secret(tenant, agent, args["secret"])
        if "token" in args:
            return acb_sdk.Credentials.token(args["token"])
        return acb_sdk.Credentials.dev(agent, tenant=tenant)

    async def do_connect(self, args: Args) -> Args:
        await self.hang_up()
        self.agent = args.get("agent", self.agent)
        self.credentials = self.credentials_of(args)
        self.connecting = acb_sdk.Options(connect_timeout=args["timeout"]) if "timeout" in args else None
        client = await self.client()
        identity = client.identity
        tenant = identity.tenant_id if identity is not None else args.get("tenant", self.tenant)
        return {"agent_id": client.agent_id or "", "tenant_id": tenant}

    async def do_health(self, _: Args) -> Args:
        health = await (await self.client()).health()
        return {"status": "serving" if health.serving else "not_serving"}

    # --- agents -----------------------------------------------------------------------------------------------------

    def fields(self, args: Args) -> Args:
        names = ("type", "name", "description", "version", "location", "endpoint", "groups", "metadata")
        out = {name: args[name] for name in names if name in args}
        if "capabilities" in args:
            out["capabilities"] = [capability(c) for c in args["capabilities"]]
        return out

    async def do_register(self, args: Args) -> Args:
        agents = (await self.client()).agents
        return shape_agent(await agents.register(args.get("id", self.agent), **self.fields(args)))

    async def do_get_agent(self, args: Args) -> Args:
        return shape_agent(await (await self.client()).agents.get(args.get("id", self.agent)))

    async def do_update_agent(self, args: Args) -> Args:
        fields = self.fields(args)
        if args.get("fields"):
            fields = {name: value for name, value in fields.items() if name in args["fields"]}
        return shape_agent(await (await self.client()).agents.update(args.get("id", self.agent), **fields))

    async def do_unregister(self, args: Args) -> None:
        agents = (await self.client()).agents
        await agents.unregister(args.get("id", self.agent), keep_inbox=args.get("keep_inbox", False))

    async def do_heartbeat(self, _: Args) -> Args:
        return {"next_within_ms": ms_of(await (await self.client()).agents.heartbeat())}

    async def do_discover(self, args: Args) -> Args:
        search = (await self.client()).agents.discover(
            type=args.get("type"),
            location=args.get("location"),
            capabilities=args.get("capabilities_all"),
            any_capability=args.get("capabilities_any"),
            status=args.get("status"),
            metadata=args.get("metadata"),
            text=args.get("text"),
        )
        page = await search.page(args.get("page_size", 0), args.get("page_token", ""))
        agents = [shape_agent(a) for a in page.items]
        return {"ids": [a["id"] for a in agents], "agents": agents, "next_page_token": page.next_token or ""}

    # --- subscriptions ----------------------------------------------------------------------------------------------

    def rules(self, args: Args) -> Args:
        start: Any = args.get("start")
        if start == "sequence":
            start = args.get("seq", 0)
        elif start == "time":
            start = datetime.fromtimestamp(args.get("time", 0) / 1000, UTC)
        return {
            "ack_wait": args.get("ack_wait"),
            "retry_schedule": args.get("retry"),
            "max_attempts": args.get("max_attempts"),
            "dead_letters": args.get("dead_letters"),
            "max_leased": args.get("max_leased"),
            "start": start,
        }

    async def do_create_subscription(self, args: Args) -> Args:
        subscriptions = (await self.client()).subscriptions
        made = await subscriptions.create(args.get("name", ""), args.get("filters", []), **self.rules(args))
        return {**shape_subscription(made.subscription), "existed": made.existed}

    async def do_get_subscription(self, args: Args) -> Args:
        return shape_subscription(await (await self.client()).subscriptions.get(args["name"]))

    async def do_list_subscriptions(self, args: Args) -> Args:
        pages = (await self.client()).subscriptions.list()
        page = await pages.page(args.get("page_size", 0), args.get("page_token", ""))
        found = [shape_subscription(s) for s in page.items]
        return {
            "names": [s["name"] for s in found], "subscriptions": found, "next_page_token": page.next_token or "",
        }

    async def do_delete_subscription(self, args: Args) -> None:
        await (await self.client()).subscriptions.delete(args["name"])

    # --- messages out -----------------------------------------------------------------------------------------------

    def options(self, args: Args) -> Args:
        names = (
            "durability", "kind", "priority", "attributes", "correlation_id", "reply_to", "content_type", "order_key",
            "trace", "context_refs", "expires_at_ms",
        )
        out = {name: args[name] for name in names if name in args}
        if "key" in args:
            out["idempotency_key"] = args["key"]
        return out

    async def put(self, args: Args) -> acb_sdk.Published:
        messages, payload = (await self.client()).messages, payload_of(args)
        if "to" in args:
            return await messages.send(args["to"], payload, **self.options(args))
        if args.get("all"):
            return await messages.broadcast(payload, **self.options(args))
        if "topic" not in args:
            raise BadScenarioError("a message goes `to` an agent, to `all` or to a `topic`")
        return await messages.publish(args["topic"], payload, **self.options(args))

    async def do_send(self, args: Args) -> Args:
        return shape_published(await self.put(args))

    async def do_publish(self, args: Args) -> Args:
        results: list[Args] = []
        items = args["items"]
        plain = {"topic", "payload_b64", "durability", "attributes", "content_type", "kind", "priority", "order_key"}
        alike = {k: v for k, v in items[0].items() if k != "payload_b64"} if items else {}
        same = all({k: v for k, v in i.items() if k != "payload_b64"} == alike for i in items)
        if len(items) > 1 and same and "topic" in alike and set(alike) <= plain:
            # The way of many messages: one publisher, a receipt each.
            options = {name: value for name, value in alike.items() if name != "topic"}
            publisher = (await self.client()).messages.publisher(alike["topic"], **options)
            receipts = [await publisher.publish(payload_of(item)) for item in items]
            for receipt in receipts:
                try:
                    results.append(shape_published(await receipt.result()))
                except acb_sdk.AcbError as error:
                    results.append({"code": error.code, "message": str(error), "retryable": error.retryable})
            return {"results": results}
        for item in items:
            try:
                results.append(shape_published(await self.put(item)))
            except acb_sdk.AcbError as error:
                results.append({"code": error.code, "message": str(error), "retryable": error.retryable})
        return {"results": results}

    async def do_request(self, args: Args) -> Args:
        name = args.get("name", f"request-{len(self.pending) + 1}")
        messages, payload = (await self.client()).messages, payload_of(args)
        timeout = args.get("timeout", self.patience)
        to, topic = args.get("to"), args.get("topic")
        self.pending[name] = self.background(
            lambda: messages.request(to, payload, topic=topic, timeout=timeout)
        )
        self.last_request = name
        return {"name": name}

    async def do_answer(self, args: Args) -> Args:
        pending = self.pending.pop(args.get("name", self.last_request), None)
        if pending is None:
            raise BadScenarioError("no such request")
        return shape_message(await self.answer_of(pending))

    async def answer_of(self, pending: Any) -> acb_sdk.AsyncMessage:
        if hasattr(pending, "wait"):
            return pending.wait()
        return await pending

    async def do_reply(self, args: Args) -> Args:
        last = self.session(args).last
        if last is None:
            raise BadScenarioError("nothing was received yet")
        return shape_published(await last.reply(payload_of(args)))

    async def do_status(self, args: Args) -> Args:
        status = await (await self.client()).messages.status(args["id"])
        return {
            "message_id": status.id, "topic": status.topic, "from": status.from_agent,
            "stored_at_ms": ms(status.stored_at),
            "subscriptions": [
                {
                    "subscription": s.subscription, "state": s.state, "attempts": s.attempts,
                    "due_at_ms": ms(s.due_at), "dead_letter_id": s.dead_letter_id,
                }
                for s in status.subscriptions
            ],
        }

    async def do_dead_letters(self, args: Args) -> Args:
        pages = (await self.client()).dead_letters.list(args["subscription"])
        page = await pages.page(args.get("page_size", 0), args.get("page_token", ""))
        return {
            "dead_letters": [shape_dead_letter(d) for d in page.items], "next_page_token": page.next_token or "",
        }

    async def do_dead_letter(self, args: Args) -> Args:
        return shape_dead_letter(await (await self.client()).dead_letters.get(args["id"]))

    async def do_redrive(self, args: Args) -> Args:
        payload = payload_of(args) if "payload_b64" in args else None
        return {"message_id": await (await self.client()).dead_letters.redrive(args["id"], payload=payload)}

    async def do_discard(self, args: Args) -> None:
        await (await self.client()).dead_letters.discard(args["id"])

    # --- messages in ------------------------------------------------------------------------------------------------

    def session(self, args: Args) -> Session:
        name = args.get("session", "main")
        if name not in self.sessions:
            raise BadScenarioError(f"no consumer is called {name}")
        return self.sessions[name]

    async def do_consume(self, args: Args) -> Args:
        client = await self.client()
        messages, size = args.get("credit", 64), args.get("credit_bytes", 8 << 20)
        bounds: Args = {"max_pending": messages, "max_pending_bytes": size}
        if "subscription" in args:
            subscription = client.subscribe(args["subscription"], **bounds)
        elif "filters" in args:
            subscription = client.listen(*args["filters"], **self.rules(args), **bounds)
        else:
            subscription = client.inbox(**bounds)
        await subscription.open()
        old = self.sessions.pop(args.get("session", "main"), None)
        if old is not None:
            await old.subscription.close()
        self.sessions[args.get("session", "main")] = Session(subscription, messages, size)
        return {"ack_wait_ms": ms_of(subscription.ack_wait)}

    async def do_credit(self, args: Args) -> None:
        session = self.session(args)
        session.credit = (args.get("messages", session.credit[0]), args.get("bytes", session.credit[1]))
        session.subscription.set_max_pending(*session.credit)

    async def do_receive(self, args: Args) -> Args:
        session = self.session(args)
        messages: list[Args] = []
        for number in range(args["count"]):
            try:
                message = await session.subscription.next(timeout=self.patience)
            except acb_sdk.DeadlineExceededError as error:
                raise NoAnswerError(f"{number} of {args['count']} came") from error
            if message is None:
                raise EndedError("the subscription is over")
            session.received[message.seq] = message
            session.last = message
            session.count += 1
            messages.append({**shape_message(message), "delivery": session.count})
        return {"messages": messages}

    async def do_nothing(self, args: Args) -> None:
        # The answer of a call comes behind what the same connection was being told.
        client = await self.client()
        await client.health()
        await client.health()
        message = self.session(args).subscription.next_here()
        if message is not None:
            error = BadScenarioError(f"{message!r} came")
            error.code = "unexpected_message"
            raise error

    def named(self, args: Args) -> acb_sdk.AsyncMessage:
        message = self.session(args).received.get(args["seq"])
        if message is None:
            raise BadScenarioError(f"seq {args['seq']} was not received")
        return message

    async def do_ack(self, args: Args) -> None:
        message = self.named(args)
        if args.get("confirm"):
            await message.ack_confirmed()
        else:
            await message.ack()

    async def do_nack(self, args: Args) -> None:
        await self.named(args).nack(args.get("reason", ""), delay=args.get("delay"))

    async def do_progress(self, args: Args) -> None:
        await self.named(args).progress()

    async def do_term(self, args: Args) -> None:
        await self.named(args).term(args.get("reason", ""))

    async def do_release(self, args: Args) -> None:
        await self.named(args).release()

    async def do_ended(self, args: Args) -> None:
        subscription = self.session(args).subscription
        while True:
            try:
                message = await subscription.next(timeout=self.patience)
            except acb_sdk.DeadlineExceededError as error:
                raise NoAnswerError("the subscription goes on") from error
            if message is None:
                raise EndedError("the subscription is over, without a reason")

    async def do_leave(self, args: Args) -> None:
        session = self.session(args)
        del self.sessions[args.get("session", "main")]
        await session.subscription.close()

    # --- contexts ---------------------------------------------------------------------------------------------------

    def spoken(self, args: Args, *names: str) -> Args:
        return {name: args[name] for name in names if name in args}

    async def do_share(self, args: Args) -> Args:
        made = await (await self.client()).contexts.share(
            args.get("key", ""),
            payload_of(args),
            context_id=args.get("id"),
            **self.spoken(
                args, "type", "scope", "groups", "shares", "content_type", "description", "labels", "metadata", "ttl",
                "version",
            ),
        )
        return {**shape_context(made), "existed": made.existed}

    async def do_get_context(self, args: Args) -> Args:
        contexts = (await self.client()).contexts
        return shape_context(await contexts.get(args.get("id") or args["key"], at_rev=args.get("at_rev")))

    async def do_update_context(self, args: Args) -> Args:
        payload = payload_of(args) if "payload_b64" in args else None
        made = await (await self.client()).contexts.update(
            args["id"],
            payload,
            **self.spoken(
                args, "if_rev", "force", "scope", "groups", "shares", "content_type", "description", "labels",
                "metadata", "ttl", "version", "idempotency_key",
            ),
        )
        return {**shape_context(made), "duplicate": made.duplicate}

    async def do_delete_context(self, args: Args) -> Args:
        contexts = (await self.client()).contexts
        return {"rev": await contexts.delete(args["id"], **self.spoken(args, "if_rev", "force")) or 0}

    async def do_renew_context(self, args: Args) -> Args:
        return {"expires_at_ms": ms(await (await self.client()).contexts.renew(args["id"], args.get("ttl")))}

    async def do_list_contexts(self, args: Args) -> Args:
        pages = (await self.client()).contexts.list(
            **self.spoken(args, "type", "owner", "scope", "labels", "key_prefix", "text")
        )
        page = await pages.page(args.get("page_size", 0), args.get("page_token", ""))
        return {
            "keys": [c.key or "" for c in page.items], "next_page_token": page.next_token or "",
            "revision": page.revision,
        }

    async def do_context_history(self, args: Args) -> Args:
        rows = await (await self.client()).contexts.history(args["id"])
        return {"revs": [c.rev for c in rows], "count": len(rows), "deleted": bool(rows) and rows[0].deleted}

    async def next_event(self, watch: Any) -> Any:
        try:
            event = await watch.next(timeout=self.patience)
        except acb_sdk.DeadlineExceededError as error:
            raise NoAnswerError("nothing of the watch came") from error
        if event is None:
            raise EndedError("the watch is over")
        return event

    async def do_watch(self, args: Args) -> Args:
        watch = (await self.client()).contexts.watch(
            context_id=args.get("id"),
            after=args.get("after_rev"),
            payloads_up_to=4096,
            timeout=self.patience,
            **self.spoken(args, "key", "key_prefix", "type", "owner", "labels"),
        )
        await watch.open()
        keys: list[str] = []
        while "after_rev" not in args:
            event = await self.next_event(watch)
            if event.kind == "synced":
                break
            if event.kind == "restarted":
                keys.clear()
            else:
                keys.append(event.context.key or "")
        self.watches[args.get("session", "main")] = watch
        return {"keys": keys, "revision": watch.revision}

    async def do_event(self, args: Args) -> Args:
        watch = self.watches[args.get("session", "main")]
        while True:
            event = await self.next_event(watch)
            if event.context is not None:
                return {**shape_context(event.context), "event": event.kind}

    # --- groups -----------------------------------------------------------------------------------------------------

    async def do_create_group(self, args: Args) -> Args:
        admin = (await self.client()).admin
        return {"members": (await admin.create_group(args["name"], args.get("description", ""))).members}

    async def do_delete_group(self, args: Args) -> None:
        await (await self.client()).admin.delete_group(args["name"])

    async def do_list_groups(self, _: Args) -> Args:
        return {"names": [group.name for group in await (await self.client()).admin.groups()]}

    async def do_add_members(self, args: Args) -> Args:
        return {"members": (await (await self.client()).admin.add_group_members(args["name"], args["agents"])).members}

    async def do_remove_members(self, args: Args) -> Args:
        admin = (await self.client()).admin
        return {"members": (await admin.remove_group_members(args["name"], args["agents"])).members}

    async def do_list_members(self, args: Args) -> Args:
        members = await (await self.client()).admin.group_members(args["name"])
        return {"agents": [member.agent_id for member in members]}

    # --- watches of agents ------------------------------------------------------------------------------------------

    async def do_set_activity(self, args: Args) -> None:
        await (await self.client()).agents.set_activity(args["activity"], ttl=args.get("ttl"))

    async def do_watch_agents(self, args: Args) -> None:
        watch = (await self.client()).agents.watch(
            agent_id=args.get("id"),
            capabilities=args.get("capabilities_all"),
            **self.spoken(args, "type", "location", "after"),
        )
        self.agent_watches[args.get("session", "main")] = await watch.open()

    def shape_event(self, event: acb_sdk.AgentEvent) -> Args | None:
        if event.agent_id is None:
            return None
        shown = shape_agent(event.agent) if event.agent is not None else {"id": event.agent_id}
        return {**shown, "kind": event.kind}

    async def do_agent_events(self, args: Args) -> Args:
        watch = self.agent_watches[args.get("session", "main")]
        events: list[Args] = []
        while len(events) < args.get("count", 1):
            shown = self.shape_event(await self.next_event(watch))
            if shown is not None:
                events.append(shown)
        return {"events": events, "revision": watch.revision}

    async def do_no_agent_events(self, args: Args) -> None:
        # The answer of a call comes behind what the same connection was being told.
        client = await self.client()
        await client.health()
        await client.health()
        watch = self.agent_watches[args.get("session", "main")]
        while True:
            try:
                event = await watch.next(timeout=args["moment"])
            except acb_sdk.DeadlineExceededError:
                return
            if event is None:
                raise EndedError("the watch is over")
            shown = self.shape_event(event)
            if shown is not None:
                error = BadScenarioError(f"{shown} came")
                error.code = "unexpected_message"
                raise error

    # --- identity ---------------------------------------------------------------------------------------------------

    async def take_tokens(self, credentials: acb_sdk.Credentials) -> Args:
        client = await connected(self.fake, self.endpoint, (self.tenant, self.agent), credentials)
        tokens = client.auth.tokens()
        await client.close()
        if tokens is None:
            return {}
        who = tokens.identity
        return {
            "access_token": tokens.access_token, "access_expires_at_ms": ms(who.access_expires_at),
            "refresh_token": tokens.refresh_token, "refresh_expires_at_ms": ms(who.refresh_expires_at),
            "agent_id": who.agent_id, "tenant_id": who.tenant_id, "roles": who.roles,
        }

    async def do_login(self, args: Args) -> Args:
        return await self.take_tokens(self.credentials_of(args))

    async def do_refresh(self, args: Args) -> Args:
        return await self.take_tokens(acb_sdk.Credentials.refresh_token(args["token"]))

    async def do_logout(self, _: Args) -> None:
        await (await self.client()).auth.logout()

    async def do_jwks(self, _: Args) -> Any:
        import json

        return json.loads(await (await self.client()).auth.jwks())

    async def do_create_tenant(self, args: Args) -> Args:
        tenant = await (await self.client()).admin.create_tenant(args["id"], args.get("name", ""))
        return {"id": tenant.id, "name": tenant.name, "created_at_ms": ms(tenant.created_at)}

    async def do_list_tenants(self, _: Args) -> Args:
        tenants = await (await self.client()).admin.tenants()
        return {"ids": [t.id for t in tenants], "next_page_token": ""}

    async def do_create_key(self, args: Args) -> Args:
        made = await (await self.client()).admin.create_enrolment_key(
            args.get("label", ""),
            tenant=args.get("tenant"),
            agent_pattern=args.get("pattern"),
            roles=args.get("roles"),
            ttl=args.get("ttl"),
        )
        return {**shape_key(made.key), "key": made.secret}

    async def do_list_keys(self, _: Args) -> Args:
        return {
            "keys": [shape_key(k) for k in await (await self.client()).admin.enrolment_keys()], "next_page_token": "",
        }

    async def do_revoke_key(self, args: Args) -> None:
        await (await self.client()).admin.revoke_enrolment_key(args["id"])

    async def do_set_secret(self, args: Args) -> Args:
        admin = (await self.client()).admin
        return {"secret": await admin.set_agent_secret(args["agent"], roles=args.get("roles", []))}

    async def do_rotate_signing_key(self, _: Args) -> Args:
        return {"key_id": await (await self.client()).admin.rotate_signing_key()}
