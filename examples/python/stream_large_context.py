"""A context of 64 MB goes up from a file and comes down again: in chunks, checked by SHA-256, and resumed by itself when a
connection breaks.

Start a server first: `acb-server --dev`. Then: `python stream_large_context.py [FILE]`.
"""

import asyncio
import os
import pathlib
import sys
import tempfile

import acb_sdk


def numbers(path: pathlib.Path) -> pathlib.Path:
    """A file of eight million lines."""
    with path.open("w", encoding="ascii") as file:
        for start in range(0, 8_000_000, 100_000):
            file.write("".join(f"{number:07}\n" for number in range(start, start + 100_000)))
    return path


async def main(folder: pathlib.Path) -> None:
    url = os.environ.get("ACB_URL", "acb://127.0.0.1:7400")
    source = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else numbers(folder / "numbers.txt")
    async with acb_sdk.AsyncClient(url, credentials=acb_sdk.Credentials.dev("archivist")) as bus:
        # Of any size: what is in memory is a window of chunks. With a resume file another process could go on with it,
        # should this one be stopped: run it again with the same two files.
        uploaded = await bus.contexts.upload(
            source, type="archive", content_type="text/plain", resume_file=folder / "upload.json"
        )
        print(f"uploaded {uploaded.size} bytes as one context, version {uploaded.version}")
        print(f"its SHA-256 is {uploaded.sha256}")

        # The whole into a file. It is there under its name once its digest is right, and not before.
        downloaded = await bus.contexts.download(uploaded.context_id, folder / "copy")
        digest = "the same" if downloaded.sha256 == uploaded.sha256 else "another"
        print(f"downloaded {downloaded.received_bytes} bytes, the digest is {digest}")

        # Or only a part of it.
        part = await bus.contexts.download_bytes(uploaded.context_id, start=0, end=min(16, uploaded.size))
        print(f"its first bytes are {part!r}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="acb-sample-") as folder:
        asyncio.run(main(pathlib.Path(folder)))
