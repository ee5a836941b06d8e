"""Two agents exchange messages, and a third hears what is published.

Start a server first: `acb-server --dev`. Then: `python exchange_messages.py`.
"""

import asyncio
import os

import acb_sdk


def client(agent: str) -> acb_sdk.AsyncClient:
    # A server that was started with --dev believes the names that agents give; elsewhere they would bring
    # `Credentials.enrolment_key(key, name)`.
    url = os.environ.get("ACB_URL", "acb://127.0.0.1:7400")
    return acb_sdk.AsyncClient(url, credentials=acb_sdk.Credentials.dev(agent))


async def main() -> None:
    # Each agent has a connection of its own. Leaving the block drains it: what is in hand is finished, then it closes.
    async with client("alice") as alice, client("bob") as bob, client("listener") as listener:
        # Who registers gets an inbox. It is there from now on, whether or not the agent is.
        await alice.agents.register("alice")
        await bob.agents.register("bob")

        # A message to one agent. It is stored when this returns: it would survive a power cut now.
        stored = await alice.messages.send("bob", "hello, bob")
        print(f"alice sent {stored.id}")

        # Bob opens his inbox only now, and finds it there.
        async with bob.inbox() as inbox:
            async for message in inbox:
                print(f"bob got {message.text!r} from {message.from_agent}")
                # Until a message is acknowledged it is only lent: without this line it would come again.
                await message.ack()
                break

        # A message to a topic goes to everybody who listens there. `*` is one token, a last `>` the rest.
        async with listener.listen("news.>") as news:
            await bob.messages.publish("news.today", "bob has mail")
            heard = await news.next(timeout=5)
            if heard is not None:
                print(f"the listener heard {heard.text!r} on {heard.topic}")
                await heard.ack()


if __name__ == "__main__":
    asyncio.run(main())
