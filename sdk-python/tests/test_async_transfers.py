"""Contents of any size: up and down, whole and in part, over kills of the server and ends of the process."""

from __future__ import annotations

import hashlib
import io
import os
import pathlib
import threading

import pytest
from conftest import Server

import acb_sdk

CHUNK = 256 << 10
WINDOW = 4 * CHUNK
SIZE = 24 * CHUNK + 7


class StopError(Exception):
    """A test's own."""


def content_of(size: int = SIZE) -> bytes:
    return os.urandom(size)


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


async def test_a_file_goes_up_and_comes_down_the_same(async_face, tmp_path: pathlib.Path) -> None:
    content = content_of()
    source, copy = tmp_path / "source", tmp_path / "copy"
    source.write_bytes(content)
    told: list[acb_sdk.Progress] = []
    where: set[int] = set()

    def progress(how_far: acb_sdk.Progress) -> None:
        told.append(how_far)
        where.add(threading.get_ident())

    async with async_face("alice") as alice, async_face("bob") as bob:
        up = await alice.contexts.upload(
            source,
            key="archives/1",
            type="archive",
            content_type="application/x-tar",
            shares={"bob": "read"},
            labels=["big"],
            chunk_bytes=CHUNK,
            progress=progress,
        )
        assert (up.size, up.sha256, up.version, up.connections) == (SIZE, digest(content), "0.1.0", 1)
        assert up.sent_bytes == SIZE
        done = [p.done_bytes for p in told]
        assert done == sorted(done) and done[-1] == SIZE and {p.total_bytes for p in told} == {SIZE}
        shown = await bob.contexts.get("archives/1")
        assert (shown.id, shown.rev, shown.sha256, shown.streamed) == (up.context_id, up.rev, up.sha256, True)
        assert (shown.type, shown.content_type, shown.labels) == ("archive", "application/x-tar", ["big"])

        told.clear()
        down = await bob.contexts.download("archives/1", copy, progress=progress)
        assert (down.context_id, down.rev, down.sha256) == (up.context_id, up.rev, up.sha256)
        assert copy.read_bytes() == content and told[-1].done_bytes == SIZE
        assert sorted(os.listdir(tmp_path)) == ["copy", "source"], "nothing is left beside it"
        assert where == {threading.get_ident()}, "progress is told on the thread that asked"

        into = io.BytesIO()
        await bob.contexts.download(up.context_id, into)
        assert into.getvalue() == content
        assert await bob.contexts.download_bytes(up.context_id) == content
        part = await bob.contexts.download_bytes(up.context_id, start=CHUNK - 3, end=CHUNK + 5)
        assert part == content[CHUNK - 3 : CHUNK + 5]
        assert await bob.contexts.download_bytes(up.context_id, start=SIZE - 2) == content[-2:]
        with pytest.raises(acb_sdk.InvalidArgumentError):
            await bob.contexts.download_bytes(up.context_id, start=5, end=5)
        with pytest.raises(acb_sdk.InvalidArgumentError):
            await bob.contexts.download(up.context_id, copy, start=5)
        async with async_face("carol") as carol:
            with pytest.raises(acb_sdk.NotFoundError):
                await carol.contexts.download(up.context_id, tmp_path / "none")


async def test_bytes_and_file_objects_go_up(async_face) -> None:
    content = content_of()
    async with async_face("alice") as alice:
        first = await alice.contexts.upload(memoryview(content), key="k")
        assert (first.size, first.sha256) == (SIZE, digest(content))
        newer = content_of(3 * CHUNK)
        second = await alice.contexts.upload(
            io.BytesIO(newer), update=first.context_id, if_rev=first.rev, progress=lambda _: None
        )
        assert (second.context_id, second.sha256, second.version) == (first.context_id, digest(newer), "0.1.1")
        assert await alice.contexts.download_bytes("k") == newer
        assert await alice.contexts.download_bytes("k", at_rev=first.rev) == content
        with pytest.raises(acb_sdk.ConflictError):
            await alice.contexts.upload(b"late", update=first.context_id, if_rev=first.rev)
        forced = await alice.contexts.upload(b"", update=first.context_id, force=True)
        assert (forced.size, forced.sha256) == (0, digest(b""))


async def test_what_cannot_be_uploaded_is_said_and_makes_no_context(async_face, tmp_path: pathlib.Path) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            piece = super().read(size)
            if not piece:
                raise StopError
            return piece

    async with async_face("alice") as alice:
        with pytest.raises(StopError):
            await alice.contexts.upload(Broken(content_of()), key="k")
        with pytest.raises(acb_sdk.InvalidArgumentError) as text:
            await alice.contexts.upload(io.StringIO("text"), key="k")
        assert text.value.context["field"] == "source"
        with pytest.raises(acb_sdk.InvalidArgumentError) as resumed:
            await alice.contexts.upload(b"x", key="k", resume_file=tmp_path / "token")
        assert resumed.value.context["field"] == "resume_file"
        with pytest.raises(acb_sdk.InvalidArgumentError) as unsaid:
            await alice.contexts.upload(b"x", update="0194f0c1-7b1e-7c3a-9d2f-5a6b7c8d9e0f")
        assert unsaid.value.code == "missing_field"
        with pytest.raises(acb_sdk.InvalidArgumentError):
            await alice.contexts.upload(tmp_path / "absent", key="k")
        with pytest.raises(acb_sdk.NotFoundError):
            await alice.contexts.get("k")


async def test_transfers_go_on_over_kills_of_the_server(own_server: Server, tmp_path: pathlib.Path) -> None:
    content = content_of()
    source = tmp_path / "source"
    source.write_bytes(content)
    kills: list[int] = []

    def kill_in_the_middle(how_far: acb_sdk.Progress) -> None:
        if not kills and SIZE // 4 < how_far.done_bytes < SIZE:
            kills.append(how_far.done_bytes)
            own_server.kill()
            own_server.start()

    credentials = acb_sdk.Credentials.dev("alice")
    async with acb_sdk.AsyncClient(own_server.endpoint, credentials=credentials) as alice:
        up = await alice.contexts.upload(
            source, key="k", chunk_bytes=CHUNK, window_bytes=WINDOW, progress=kill_in_the_middle
        )
        assert kills, "the upload was over before the server was killed"
        assert (up.size, up.sha256) == (SIZE, digest(content))
        assert up.connections >= 2
        assert up.sent_bytes <= SIZE + WINDOW, "what is sent again is at most one window"
        kills.clear()
        into = io.BytesIO()
        down = await alice.contexts.download("k", into, progress=kill_in_the_middle)
        assert kills, "the download was over before the server was killed"
        assert into.getvalue() == content and down.sha256 == digest(content)
        shown = await alice.contexts.get("k", payload=False)
        assert (shown.id, shown.rev) == (up.context_id, up.rev), "it became one context, once"


async def test_an_upload_that_was_stopped_goes_on_by_its_resume_file(async_face, tmp_path: pathlib.Path) -> None:
    content = content_of()
    source, token = tmp_path / "source", tmp_path / "token"
    source.write_bytes(content)
    reached: list[int] = []

    def stop_in_the_middle(how_far: acb_sdk.Progress) -> None:
        reached.append(how_far.done_bytes)
        if how_far.done_bytes >= SIZE // 2:
            raise StopError

    async with async_face("alice") as alice:
        with pytest.raises(StopError):
            await alice.contexts.upload(
                source, key="k", chunk_bytes=CHUNK, window_bytes=WINDOW, resume_file=token, progress=stop_in_the_middle
            )
        assert token.exists() and reached[-1] < SIZE
        with pytest.raises(acb_sdk.NotFoundError):
            await alice.contexts.get("k")
    async with async_face("alice") as again:
        up = await again.contexts.upload(
            source, key="k", chunk_bytes=CHUNK, window_bytes=WINDOW, resume_file=str(token)
        )
        assert (up.sha256, up.size) == (digest(content), SIZE)
        assert up.sent_bytes <= SIZE - reached[-1]
        assert not token.exists()
        assert (await again.contexts.get("k", payload=False)).id == up.context_id


async def test_an_upload_that_was_stopped_can_be_asked_for_and_given_up(async_face, tmp_path: pathlib.Path) -> None:
    content = content_of()
    source, token = tmp_path / "source", tmp_path / "token"
    source.write_bytes(content)

    def stop_in_the_middle(how_far: acb_sdk.Progress) -> None:
        if how_far.done_bytes >= SIZE // 2:
            raise StopError

    async with async_face("alice") as alice:
        assert await alice.contexts.stopped_upload(token) is None, "nothing was begun"
        await alice.contexts.abort_upload(token)
        with pytest.raises(StopError):
            await alice.contexts.upload(
                source, key="k", chunk_bytes=CHUNK, window_bytes=WINDOW, resume_file=token, progress=stop_in_the_middle
            )
        status = await alice.contexts.stopped_upload(str(token))
        assert status is not None and (status.state, status.total_bytes, status.context_id) == ("open", SIZE, None)
        assert SIZE // 2 <= status.received_bytes < SIZE
        await alice.contexts.abort_upload(token)
        assert not token.exists()
        assert await alice.contexts.stopped_upload(token) is None
        token.write_text("{}")
        with pytest.raises(acb_sdk.InvalidArgumentError):
            await alice.contexts.abort_upload(token)
        assert token.exists(), "what is none of ours is left alone"
        anew = await alice.contexts.upload(source, key="k", chunk_bytes=CHUNK, window_bytes=WINDOW)
        assert (anew.sha256, anew.size) == (digest(content), SIZE)


async def test_a_transfer_has_a_timeout_of_its_own(async_face) -> None:
    class Slow(io.BytesIO):
        """Has nothing to give until the time is over."""

        over = threading.Event()

        def read(self, size: int | None = -1, /) -> bytes:
            self.over.wait(0.2)
            return b"x"

    async with async_face("alice") as alice:
        with pytest.raises(acb_sdk.DeadlineExceededError):
            await alice.contexts.upload(Slow(), key="k", timeout=0.1)
        with pytest.raises(acb_sdk.NotFoundError):
            await alice.contexts.get("k")
