"""Contents of any size of one agent of a scenario: the verbs that move them."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from typing import Any

from shapes import Args, BadScenarioError, Gated, StopError, Stopped, shape_uploaded

import acb_sdk


class AsyncUploads:
    """Uploads and downloads of an agent, whose client and tasks are its own."""

    client: Callable[[], Any]
    background: Callable[[Callable[[], Any]], Any]
    blocking: Callable[[Callable[[], None]], Any]
    answer_of: Callable[[Any], Any]
    spoken: Callable[..., Args]
    patience: float

    def __init__(self) -> None:
        self.uploads: dict[str, tuple[Gated, Any]] = {}
        self.stopped: dict[str, Stopped] = {}

    def let_uploads_go(self) -> None:
        for gate, _ in self.uploads.values():
            gate.let.set()
        self.uploads.clear()

    async def put_content(
        self,
        args: Args,
        source: str | acb_sdk.ByteReader,
        tell: Callable[[acb_sdk.Progress], None],
        resume_file: str | None = None,
    ) -> Any:
        return await (await self.client()).contexts.upload(
            source,
            update=args.get("id"),
            force="id" in args and "if_rev" not in args,
            progress=tell,
            resume_file=resume_file,
            **self.spoken(
                args, "key", "type", "scope", "groups", "shares", "content_type", "description", "labels", "metadata",
                "ttl", "version", "if_rev", "chunk_bytes", "window_bytes",
            ),
        )

    async def do_upload(self, args: Args) -> Args:
        told: list[acb_sdk.Progress] = []
        made = await self.put_content(args, io.BytesIO(base64.b64decode(args["content_b64"])), told.append)
        return shape_uploaded(made, told[-1] if told else None)

    async def do_begin_upload(self, args: Args) -> None:
        gate = Gated(base64.b64decode(args["content_b64"]), args.get("settled_bytes", 0), self.patience)

        async def work() -> Any:
            try:
                return await self.put_content(args, gate, gate.tell)
            finally:
                # Whoever waits for its first part waits no more.
                gate.settled.set()

        running = self.background(work)
        await self.blocking(gate.wait)
        if gate.told is None or gate.told.done_bytes < gate.first:
            await self.answer_of(running)
            raise BadScenarioError("it was over too early")
        self.uploads[args.get("name", "main")] = (gate, running)

    async def do_uploaded(self, args: Args) -> Args:
        begun = self.uploads.pop(args.get("name", "main"), None)
        if begun is None:
            raise BadScenarioError("no such upload")
        gate, running = begun
        gate.let.set()
        return shape_uploaded(await self.answer_of(running), gate.told)

    async def do_stop_upload(self, args: Args) -> None:
        stopped = Stopped(base64.b64decode(args["content_b64"]), args.get("settled_bytes", 1))
        try:
            await self.put_content(args, stopped.file, stopped.tell, stopped.resume_file)
        except StopError:
            self.stopped[args.get("name", "main")] = stopped
            return
        raise BadScenarioError("it was over too early")

    def resume_file(self, args: Args) -> str:
        stopped = self.stopped.get(args.get("name", "main"))
        if stopped is None:
            raise BadScenarioError("no such upload")
        return stopped.resume_file

    async def do_stopped_upload(self, args: Args) -> Args:
        status = await (await self.client()).contexts.stopped_upload(self.resume_file(args))
        return {"state": "none"} if status is None else {
            "state": status.state, "received_bytes": status.received_bytes, "total_bytes": status.total_bytes,
            "id": status.context_id,
        }

    async def do_abort_upload(self, args: Args) -> None:
        await (await self.client()).contexts.abort_upload(self.resume_file(args))

    async def do_download(self, args: Args) -> Args:
        start, count, into = args.get("from"), args.get("bytes"), io.BytesIO()
        down = await (await self.client()).contexts.download(
            args.get("id") or args["key"],
            into,
            at_rev=args.get("at_rev"),
            start=start,
            end=None if count is None else (start or 0) + count,
        )
        return {
            "id": down.context_id, "rev": down.rev, "size_bytes": down.size, "sha256": down.sha256,
            "received_bytes": down.received_bytes, "content_b64": base64.b64encode(into.getvalue()).decode(),
        }
