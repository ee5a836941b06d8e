"""What makes a process a member of the team: it tells its story as one JSON object a line on standard output. A word to it
comes on its standard input, and it ends by itself when that closes. The same as `team.rs`."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
from typing import Any

import acb_sdk

# Names of things on the bus; `bus.rs` has the same.
PLANNER = "planner"
CAPABILITY = "file.survey"
WORK = "work.survey"
SURVEY = "survey"
PROGRESS = "progress"
FILE = "file"
NUMBER = "number"

frozen = threading.Event()
"""Set when this process is to stop in the middle of its work."""


def tell(event: str, **fields: Any) -> None:
    """Tells an event to whoever started this process."""
    print(json.dumps({"event": event, **fields}), flush=True)


def say(text: str) -> None:
    """Tells a line of the story."""
    tell("say", text=text)


def listen_to_parent() -> None:
    """Listens to the one who started this process, and ends it when that one is gone."""

    def listen() -> None:
        for word in sys.stdin:
            if word.strip() == "freeze":
                frozen.set()
        # Nobody is left to tell anything to, and whatever is in hand may come again.
        os._exit(3)

    threading.Thread(target=listen, daemon=True).start()


def client(url: str, agent: str) -> acb_sdk.AsyncClient:
    """An agent with the key that came through the environment."""
    return acb_sdk.AsyncClient(url, credentials=acb_sdk.Credentials.enrolment_key(os.environ["ACB_KEY"], agent))


async def tell_of_connection(bus: acb_sdk.AsyncClient) -> None:
    """Tells when the connection goes and comes."""
    async for event in bus.events():
        if event.name == "suspended":
            tell("lost")
        elif event.name == "resumed":
            tell("back")
        elif event.name == "gap":
            say(f"missed messages: {event.error}")


async def progress(bus: acb_sdk.AsyncClient, agent: str, files: int, of: int = 0) -> None:
    """Tells how far an agent is. Nobody waits for that to be stored, and a lost line is made good by the next."""
    await bus.messages.publish(
        f"{PROGRESS}.{agent}", {"files": files, "of": of}, kind="event", durability="memory"
    )


def run(main: Any) -> None:
    """Runs a member to its end."""
    listen_to_parent()
    asyncio.run(main)
