"""How a face looks in on a transfer: the core moves the bytes on threads of its own, what calls the user runs here."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar, cast

from ._errors import make

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._native import NativeTransfer
    from ._port import AsyncPort
    from ._types import ByteReader, ByteWriter, Progress

T = TypeVar("T")


def _tell(transfer: NativeTransfer[T], progress: Callable[[Progress], object] | None) -> None:
    told = transfer.progress()
    if told is not None and progress is not None:
        progress(told)


async def carry(
    port: AsyncPort, transfer: NativeTransfer[T], progress: Callable[[Progress], object] | None
) -> T:
    """Waits for the end of a transfer and tells of progress until then."""
    while True:
        await port.run(transfer.over() if progress is None else transfer.news())
        # First this: what was told before the end is told before it.
        outcome = transfer.outcome()
        _tell(transfer, progress)
        if outcome is not None:
            return outcome


async def feed(
    port: AsyncPort,
    transfer: NativeTransfer[T],
    source: ByteReader,
    size: int,
    progress: Callable[[Progress], object] | None,
) -> None:
    """Gives a transfer what a file object has. What went wrong with the transfer is told by its outcome."""
    while True:
        piece = cast("object", await port.blocking(source.read, size))
        if not isinstance(piece, (bytes, bytearray)):
            text = f"a file object gives bytes, not {type(piece).__name__}: open it in binary mode"
            raise make("invalid_argument", text, "contexts.upload", field="source")
        if not piece:
            transfer.end()
            return
        if not await port.run(transfer.write(bytes(piece))):
            return
        _tell(transfer, progress)


async def drain(
    port: AsyncPort,
    transfer: NativeTransfer[T],
    to: ByteWriter,
    progress: Callable[[Progress], object] | None,
) -> None:
    """Writes what a transfer brings to a file object."""
    while piece := await port.run(transfer.read()):
        rest = memoryview(piece)
        while rest:
            count = await port.blocking(to.write, bytes(rest))
            # Writers that say nothing take all.
            rest = rest[count:] if isinstance(count, int) else rest[len(rest) :]
        _tell(transfer, progress)


async def collect(
    port: AsyncPort, transfer: NativeTransfer[T], progress: Callable[[Progress], object] | None
) -> bytes:
    """What a transfer brings, as one."""
    pieces: list[bytes] = []
    while piece := await port.run(transfer.read()):
        pieces.append(piece)
        _tell(transfer, progress)
    return b"".join(pieces)
