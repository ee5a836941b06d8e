"""Contexts: what agents share, versioned and governed, of any size."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ._async_nouns import PAGE_SIZE_MAX, AsyncPages
from ._async_transfers import carry, collect, drain, feed
from ._async_watches import AsyncWatch
from ._errors import ConflictError, make
from ._options import NOT_GIVEN, given
from ._payload import encode

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from ._native import Call, NativeClient
    from ._options import NotGiven
    from ._payload import Payload
    from ._port import AsyncPort
    from ._types import (
        ByteReader,
        ByteWriter,
        Context,
        ContextAccess,
        ContextEvent,
        ContextPage,
        ContextScope,
        Downloaded,
        Progress,
        SharedContext,
        UpdatedContext,
        Uploaded,
        UploadStatus,
    )

READ_BYTES = 1 << 20
"""Bytes that a file object is asked for at once."""


class AsyncContextPages(AsyncPages["Context"]):
    """A list of contexts, oldest first, page by page behind one iterator. None has its payload."""

    def __init__(self, port: AsyncPort, fetch: Callable[[int, str], Call[ContextPage]]) -> None:
        super().__init__(port, fetch)
        self._fetch_page = fetch

    async def page(self, size: int = PAGE_SIZE_MAX, token: str = "") -> ContextPage:
        """One page: 1 to 500 contexts, from the token of the page before. It tells the revision that it is of."""
        return await self._port.run(self._fetch_page(size, token))


class AsyncContexts:
    """Contexts: what agents share.

    Every change of a context makes a new revision. Writes name the revision that they were made for, so that two agents
    never overwrite each other unseen.
    """

    def __init__(self, native: NativeClient, port: AsyncPort) -> None:
        self._native = native
        self._port = port

    async def share(
        self,
        key: str,
        payload: Payload = None,
        *,
        context_id: str | None = None,
        type: str | None = None,
        scope: ContextScope | None = None,
        groups: Sequence[str] | None = None,
        shares: Mapping[str, ContextAccess] | None = None,
        content_type: str | None = None,
        description: str | None = None,
        labels: Sequence[str] | None = None,
        metadata: Mapping[str, str] | None = None,
        ttl: float | None = None,
        version: str | None = None,
        timeout: float | None = None,
    ) -> SharedContext:
        """Shares a new context under a key; an empty key gives it none.

        A payload above 256 KiB is streamed, in chunks that resume. What does not fit into memory is for ``upload``.

        It is private unless ``shares`` names agents (each may ``"read"`` or ``"write"``), ``groups`` names groups, or
        ``scope`` is ``"public"``. ``ttl`` is its life in seconds, for ever without it; ``version`` is semantic, ``0.1.0``
        at first. Repeats itself safely after a broken connection; with a ``context_id`` of one's own (a UUIDv7) the whole
        call can be repeated.

        Raises ``context_exists`` for a key that is taken, ``group_not_found``, ``storage_full``.
        """
        body, media = encode(payload, content_type)
        fields = given(
            id=context_id,
            type=type,
            scope=scope,
            groups=list(groups) if groups is not None else None,
            shares=dict(shares) if shares is not None else None,
            content_type=media,
            description=description,
            labels=list(labels) if labels is not None else None,
            metadata=dict(metadata) if metadata is not None else None,
            ttl=ttl,
            version=version,
        )
        return await self._port.run(self._native.contexts_share(key, body, fields or {}, timeout))

    async def get(
        self, id_or_key: str, *, at_rev: int | None = None, payload: bool = True, timeout: float | None = None
    ) -> Context:
        """Gets a context by its id or by its key, now or as it was at a revision, with its payload or without.

        Raises ``context_not_found``, also for what the caller may not see; ``revision_gap`` for a revision that is no
        longer kept. A payload above 1 MiB is ``streamed``: get it by ``download``.
        """
        return await self._port.run(self._native.contexts_get(id_or_key, at_rev, payload, timeout))

    async def update(
        self,
        context_id: str,
        payload: Payload = None,
        *,
        if_rev: int | None = None,
        force: bool = False,
        scope: ContextScope | None = None,
        groups: Sequence[str] | None = None,
        shares: Mapping[str, ContextAccess] | None = None,
        content_type: str | None = None,
        description: str | None = None,
        labels: Sequence[str] | None = None,
        metadata: Mapping[str, str] | None = None,
        ttl: float | NotGiven | None = NOT_GIVEN,
        version: str | None = None,
        idempotency_key: str | None = None,
        timeout: float | None = None,
    ) -> UpdatedContext:
        """Changes what is given of a context, and only that: if it is still at ``if_rev``, or by ``force`` whatever is
        there, which is audited. A list or mapping replaces the one that is there; a ``ttl`` of ``None`` is for ever.

        The media type stays, unless one is given. The version raises its patch, unless one is given. Made again by itself
        after a broken connection, and done once; by an ``idempotency_key`` also by who repeats the whole call.

        Raises ``revision_conflict`` with the detail ``rev`` when somebody was faster, ``missing_field`` without
        ``if_rev`` and ``force``, ``context_not_found``, ``permission_denied``.
        """
        body = None if payload is None else encode(payload)[0]
        fields = given(
            if_rev=if_rev,
            force=force or None,
            scope=scope,
            groups=list(groups) if groups is not None else None,
            shares=dict(shares) if shares is not None else None,
            content_type=content_type,
            description=description,
            labels=list(labels) if labels is not None else None,
            metadata=dict(metadata) if metadata is not None else None,
            ttl=None if ttl is NOT_GIVEN else ttl,
            forever=True if ttl is None else None,
            version=version,
            idempotency_key=idempotency_key,
        )
        return await self._port.run(self._native.contexts_update(context_id, body, fields or {}, timeout))

    async def modify(
        self, id_or_key: str, change: Callable[[Context], Payload], *, timeout: float | None = None
    ) -> Context:
        """Changes the payload of a context, however many others do so at the same time: gets it, asks ``change`` for the
        new payload, writes it at the revision that was got, and begins anew when somebody was faster.

        ``change`` may run several times, and only what the last one answered is written; ``None`` leaves the context as it
        is. It tries until it succeeds; ``timeout`` is that of each of its calls.
        """
        while True:
            present = await self.get(id_or_key, timeout=timeout)
            payload = change(present)
            if payload is None:
                return present
            try:
                return await self.update(present.id, payload, if_rev=present.rev, timeout=timeout)
            except ConflictError as error:
                if error.code != "revision_conflict":
                    raise

    async def delete(
        self, context_id: str, *, if_rev: int | None = None, force: bool = False, timeout: float | None = None
    ) -> int | None:
        """Deletes a context, if it is still at ``if_rev``, or by ``force``. Gives the marker's revision; ``None`` when
        nothing was there. Safe to repeat. Raises ``revision_conflict``, ``missing_field``, ``permission_denied``."""
        return await self._port.run(self._native.contexts_delete(context_id, if_rev, force, timeout))

    async def renew(
        self, context_id: str, ttl: float | None, *, timeout: float | None = None
    ) -> datetime | None:
        """Starts the life of a context anew, for so many seconds or for ever. Gives its end. Makes no revision."""
        return await self._port.run(self._native.contexts_renew(context_id, ttl, timeout))

    def list(
        self,
        *,
        type: str | None = None,
        owner: str | None = None,
        scope: ContextScope | None = None,
        labels: Sequence[str] | None = None,
        key_prefix: str | None = None,
        text: str | None = None,
        timeout: float | None = None,
    ) -> AsyncContextPages:
        """Lists the contexts that the caller may see, oldest first, without payloads. All conditions must hold; ``text``
        is looked for in key, type and description, in any case."""
        query = given(
            type=type,
            owner=owner,
            scope=scope,
            labels=[*labels] if labels is not None else None,
            key_prefix=key_prefix,
            text=text,
        )
        return AsyncContextPages(
            self._port, lambda size, token: self._native.contexts_page(query or {}, size, token, timeout)
        )

    async def history(self, context_id: str, *, timeout: float | None = None) -> Sequence[Context]:
        """The kept revisions of a context, at most 64, newest first, without payloads. The first may be the marker of a
        delete."""
        return await self._port.run(self._native.contexts_history(context_id, timeout))

    def watch(
        self,
        *,
        context_id: str | None = None,
        key: str | None = None,
        key_prefix: str | None = None,
        type: str | None = None,
        owner: str | None = None,
        labels: Sequence[str] | None = None,
        after: int | None = None,
        payloads_up_to: int = 0,
        timeout: float | None = None,
    ) -> AsyncWatch[ContextEvent]:
        """Watches contexts: what is there, then every change, each once and in order, over any number of broken
        connections and restarts of the server. All conditions must hold.

        ``after`` begins with the changes after a revision that an earlier watch (its ``revision``), or a list, told.
        Payloads of at most ``payloads_up_to`` bytes (0 to 1 MiB) come with their events. Opening it raises
        ``revision_gap`` when the changes after that revision are no longer kept: list, and watch from there.
        """
        query = given(
            id=context_id,
            key=key,
            key_prefix=key_prefix,
            type=type,
            owner=owner,
            labels=[*labels] if labels is not None else None,
            after=after,
            payloads_up_to=payloads_up_to,
        )
        return AsyncWatch(self._port, lambda: self._native.contexts_watch(query or {}, timeout), after)

    async def upload(
        self,
        source: str | os.PathLike[str] | bytes | bytearray | memoryview | ByteReader,
        *,
        key: str | None = None,
        type: str | None = None,
        scope: ContextScope | None = None,
        groups: Sequence[str] | None = None,
        shares: Mapping[str, ContextAccess] | None = None,
        content_type: str | None = None,
        description: str | None = None,
        labels: Sequence[str] | None = None,
        metadata: Mapping[str, str] | None = None,
        ttl: float | None = None,
        version: str | None = None,
        update: str | None = None,
        if_rev: int | None = None,
        force: bool = False,
        chunk_bytes: int | None = None,
        window_bytes: int | None = None,
        resume_file: str | os.PathLike[str] | None = None,
        progress: Callable[[Progress], object] | None = None,
        idle_timeout: float | None = None,
        timeout: float | None = None,
    ) -> Uploaded:
        """Uploads a context of any size: a file by its path (a ``str`` is a path), bytes, or what a file object gives.

        In chunks of ``chunk_bytes`` (256 KiB to 8 MiB, 1 MiB by default), each with its SHA-256, ``window_bytes`` of them
        (16 MiB by default) on their way at once, which is also what is kept in memory; what is at most 256 KiB goes in one
        call. Goes on by itself over broken connections and restarts of the server. With a ``resume_file``, and a path,
        another process goes on where this one was stopped, when it is given the same two files; it is removed at the end.

        ``update`` makes a new revision of a context, if it is still at ``if_rev`` when all is there, or by ``force``.
        ``progress`` is called in this task, or thread, and may be told less often than there are chunks. It is given up
        when nothing is acknowledged for ``idle_timeout`` seconds (300 by default). A cancelled upload stops at once; what
        the bus has of it is kept for 24 h.

        Raises ``context_exists``, ``revision_conflict``, ``permission_denied``, ``storage_full``, ``session_fenced`` when
        another process uploads the same, ``chunk_mismatch`` when the file changed meanwhile.
        """
        if update is not None and if_rev is None and not force:
            raise make("missing_field", "an update says if_rev or force", "contexts.upload", field="if_rev")
        path = os.fspath(source) if isinstance(source, (str, os.PathLike)) else None
        content = bytes(source) if isinstance(source, (bytes, bytearray, memoryview)) else None
        if resume_file is not None and path is None:
            text = "only the upload of a path can be resumed by another process"
            raise make("invalid_argument", text, "contexts.upload", field="resume_file")
        options = given(
            key=key,
            type=type,
            scope=scope,
            groups=[*groups] if groups is not None else None,
            shares=dict(shares) if shares is not None else None,
            content_type=content_type,
            description=description,
            labels=[*labels] if labels is not None else None,
            metadata=dict(metadata) if metadata is not None else None,
            ttl=ttl,
            version=version,
            update=update,
            if_rev=if_rev,
            force=force or None,
            chunk_bytes=chunk_bytes,
            window_bytes=window_bytes,
            resume_file=os.fspath(resume_file) if resume_file is not None else None,
            idle_timeout=idle_timeout,
        )
        transfer = self._native.contexts_upload(path, content, options or {}, progress is not None, timeout)
        try:
            if not isinstance(source, (str, os.PathLike, bytes, bytearray, memoryview)):
                await feed(self._port, transfer, source, READ_BYTES, progress)
            return await carry(self._port, transfer, progress)
        finally:
            transfer.close()

    async def stopped_upload(
        self, resume_file: str | os.PathLike[str], *, timeout: float | None = None
    ) -> UploadStatus | None:
        """How far the upload is that a ``resume_file`` stands for; ``None`` where there is no such file: nothing was begun
        under it, or it is complete.

        Raises ``stream_expired`` or ``stream_not_found`` when the bus has given it up, ``invalid_argument`` for a file that
        cannot be read or is none of ours.
        """
        return await self._port.run(self._native.contexts_stopped_upload(os.fspath(resume_file), timeout))

    async def abort_upload(self, resume_file: str | os.PathLike[str], *, timeout: float | None = None) -> None:
        """Gives the upload up that a ``resume_file`` stands for, and removes the file: what the bus has of it is gone at
        once, not after 24 h. Where there is no such file, there is nothing to give up.

        Raises ``stream_closed`` for one that is complete, ``invalid_argument`` for a file that cannot be read or is none of
        ours.
        """
        await self._port.run(self._native.contexts_abort_upload(os.fspath(resume_file), timeout))

    async def download(
        self,
        id_or_key: str,
        to: str | os.PathLike[str] | ByteWriter,
        *,
        at_rev: int | None = None,
        start: int | None = None,
        end: int | None = None,
        progress: Callable[[Progress], object] | None = None,
        idle_timeout: float | None = None,
        timeout: float | None = None,
    ) -> Downloaded:
        """Downloads a context of any size by its id or key, now or as it was at a revision.

        To a path: beside it first, under the name with ``.acb-part`` at its end; checked by the SHA-256 of the whole,
        then renamed. A part that is there of the same revision is continued, also by another process. To a file object:
        piece by piece; what was written before an error is not to be used. ``start`` and ``end`` ask for a part of it in
        bytes, and go to a file object only.

        Goes on by itself over broken connections. ``progress`` is called in this task, or thread. Raises
        ``context_not_found``, ``revision_gap``, ``data_damaged``, ``digest_mismatch``.
        """
        path = os.fspath(to) if isinstance(to, (str, os.PathLike)) else None
        options = given(at_rev=at_rev, start=start, end=end, idle_timeout=idle_timeout)
        tell = progress is not None
        transfer = self._native.contexts_download(id_or_key, path, options or {}, tell, timeout)
        try:
            if not isinstance(to, (str, os.PathLike)):
                await drain(self._port, transfer, to, progress)
            return await carry(self._port, transfer, progress)
        finally:
            transfer.close()

    async def download_bytes(
        self,
        id_or_key: str,
        *,
        at_rev: int | None = None,
        start: int | None = None,
        end: int | None = None,
        progress: Callable[[Progress], object] | None = None,
        idle_timeout: float | None = None,
        timeout: float | None = None,
    ) -> bytes:
        """Downloads a context, or its bytes from ``start`` to before ``end``, into memory. Otherwise as
        ``download``."""
        options = given(at_rev=at_rev, start=start, end=end, idle_timeout=idle_timeout)
        tell = progress is not None
        transfer = self._native.contexts_download(id_or_key, None, options or {}, tell, timeout)
        try:
            content = await collect(self._port, transfer, progress)
            await carry(self._port, transfer, progress)
            return content
        finally:
            transfer.close()
