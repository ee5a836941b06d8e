"""What both faces share: failures of a driver, and results in the wire contract's words."""

from __future__ import annotations

import base64
import os
import tempfile
import threading
import time
from datetime import UTC, datetime
from typing import Any

import acb_sdk

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
Args = dict[str, Any]


class NoAnswerError(Exception):
    """Nothing came in the time that a test waits."""

    code = "no_answer"


class EndedError(Exception):
    """The subscription is over without a reason."""

    code = "ended"


class BadScenarioError(Exception):
    """A command that this driver does not know."""

    code = "bad_scenario"


def ms(at: datetime | None) -> int:
    return 0 if at is None else round((at - EPOCH).total_seconds() * 1000)


def ms_of(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1000)


def b64(payload: bytes | None) -> str:
    return base64.b64encode(payload or b"").decode()


def payload_of(args: Args) -> bytes:
    return base64.b64decode(args.get("payload_b64", ""))


def shape_agent(a: acb_sdk.Agent) -> Args:
    return {
        "id": a.id, "type": a.type, "name": a.name, "description": a.description, "version": a.version,
        "location": a.location, "endpoint": a.endpoint, "groups": a.groups, "metadata": dict(a.metadata),
        "capabilities": [
            {"name": c.name, "version": c.version, "input_schema": c.input_schema, "output_schema": c.output_schema}
            for c in a.capabilities
        ],
        "incarnation": a.incarnation, "status": a.status, "presence": a.presence, "activity": a.activity or "",
        "activity_until_ms": ms(a.activity_until), "registered_at_ms": ms(a.registered_at),
        "updated_at_ms": ms(a.updated_at), "last_seen_at_ms": ms(a.last_seen_at), "revision": a.revision,
    }


def shape_subscription(s: acb_sdk.SubscriptionInfo) -> Args:
    return {
        "name": s.name, "filters": s.filters, "ack_wait_ms": ms_of(s.ack_wait),
        "retry_schedule_ms": [ms_of(wait) for wait in s.retry_schedule], "max_attempts": s.max_attempts,
        "max_leased": s.max_leased, "policy": s.dead_letters_policy, "created_by": s.created_by,
        "created_at_ms": ms(s.created_at), "floor_seq": s.floor_seq, "cursor_seq": s.cursor_seq,
        "next_seq": s.next_seq, "leased": s.leased, "waiting_retry": s.waiting_retry, "consumers": s.consumers,
        "dead_letters": s.dead_letters,
    }


def shape_published(p: acb_sdk.Published) -> Args:
    return {
        "message_id": p.id, "seq": p.seq, "epoch": p.epoch, "durability": p.durability, "duplicate": p.duplicate,
    }


def shape_message(m: acb_sdk.AsyncMessage | acb_sdk.Message) -> Args:
    return {
        "topic": m.topic, "payload_b64": b64(m.payload), "kind": m.kind, "priority": m.priority,
        "correlation_id": m.correlation_id or "", "reply_to": m.reply_to or "", "key": m.idempotency_key or "",
        "expires_at_ms": ms(m.expires_at), "order_key": m.order_key or "", "content_type": m.content_type or "",
        "context_refs": m.context_refs, "trace": m.trace or "", "original_topic": m.original_topic or "",
        "attributes": m.attributes, "message_id": m.id, "seq": m.seq, "epoch": m.epoch, "attempt": m.attempt,
        "redelivered": m.redelivered, "stored_at_ms": ms(m.stored_at), "from": m.from_agent,
        "from_incarnation": m.from_incarnation, "late": m.is_late,
    }


def shape_dead_letter(d: acb_sdk.DeadLetter) -> Args:
    if d.payload is None:
        message: Args = {"topic": d.topic, "payload_len": 0}
    else:
        message = {
            "topic": d.topic, "payload_b64": b64(d.payload), "kind": d.kind, "content_type": d.content_type,
            "correlation_id": d.correlation_id, "attributes": dict(d.attributes),
        }
    return {
        "id": d.id, "subscription": d.subscription, "message_id": d.message_id, "message": message,
        "from": d.from_agent, "reason": d.reason, "last_error": d.last_error, "attempts": d.attempts,
        "stored_at_ms": ms(d.stored_at), "died_at_ms": ms(d.died_at), "payload_bytes": d.payload_bytes,
    }


def shape_context(c: acb_sdk.Context) -> Args:
    payload = {"payload_b64": b64(c.payload)} if c.payload else {"payload": None}
    return {
        "id": c.id, "key": c.key or "", "type": c.type, "scope": c.scope, "groups": c.groups, "shares": dict(c.shares),
        "content_type": c.content_type, "description": c.description, "labels": c.labels,
        "metadata": dict(c.metadata), "version": c.version, "owner": c.owner, "rev": c.rev, "size_bytes": c.size,
        "expires_at_ms": ms(c.expires_at), "created_at_ms": ms(c.created_at), "updated_at_ms": ms(c.updated_at),
        "updated_by": c.updated_by, "deleted": c.deleted, **payload,
    }


class Gated:
    """A file object that gives a first part, and the rest when it is let. Follows the progress of its upload."""

    def __init__(self, content: bytes, first: int, patience: float) -> None:
        self.content, self.first, self.patience = content, first, patience
        self.at = 0
        self.told: acb_sdk.Progress | None = None
        self.settled = threading.Event()
        self.let = threading.Event()

    def tell(self, progress: acb_sdk.Progress) -> None:
        self.told = progress
        if progress.done_bytes >= self.first:
            self.settled.set()

    def read(self, size: int = -1, /) -> bytes:
        end = len(self.content) if self.let.is_set() else self.first
        if self.at >= end and not self.let.is_set():
            if not self.settled.is_set():
                # A client tells of progress between the pieces of a file object: the rest comes byte by byte until then.
                time.sleep(0.002)
                size = 1
            elif not self.let.wait(self.patience):
                raise OSError("the scenario is over")
            end = len(self.content)
        piece = self.content[self.at : end if size < 0 else min(end, self.at + size)]
        self.at += len(piece)
        return piece

    def wait(self) -> None:
        if not self.settled.wait(self.patience):
            raise NoAnswerError("the first part was not settled")


class StopError(Exception):
    """Stops an upload from its progress."""


class Stopped:
    """The file of an upload that is stopped when so much is settled, and its resume file."""

    def __init__(self, content: bytes, settled: int) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.file = os.path.join(self.folder.name, "source")
        self.resume_file = f"{self.file}.acb-upload"
        self.settled = settled
        with open(self.file, "wb") as file:
            file.write(content)

    def tell(self, progress: acb_sdk.Progress) -> None:
        if progress.done_bytes >= self.settled:
            raise StopError


def shape_uploaded(up: acb_sdk.Uploaded, told: acb_sdk.Progress | None) -> Args:
    progress = None if told is None else {
        "done_bytes": told.done_bytes, "total_bytes": told.total_bytes, "moved_bytes": told.moved_bytes,
    }
    return {
        "id": up.context_id, "rev": up.rev, "version": up.version, "size_bytes": up.size, "sha256": up.sha256,
        "sent_bytes": up.sent_bytes, "connections": up.connections, "progress": progress,
    }


def shape_key(k: acb_sdk.EnrolmentKey) -> Args:
    return {
        "key_id": k.id, "label": k.label, "pattern": k.agent_pattern, "roles": k.roles,
        "created_at_ms": ms(k.created_at), "expires_at_ms": ms(k.expires_at), "revoked": k.revoked,
    }


def capability(given: Any) -> acb_sdk.Capability:
    return acb_sdk.Capability(given) if isinstance(given, str) else acb_sdk.Capability(**given)
