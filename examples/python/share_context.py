"""Two agents keep one plan: one shares it, both change it, none overwrites the other unseen, and a third sees every change.

Start a server first: `acb-server --dev`. Then: `python share_context.py`.
"""

import asyncio
import os

import acb_sdk


def client(agent: str) -> acb_sdk.AsyncClient:
    url = os.environ.get("ACB_URL", "acb://127.0.0.1:7400")
    return acb_sdk.AsyncClient(url, credentials=acb_sdk.Credentials.dev(agent))


async def main() -> None:
    async with client("alice") as alice, client("bob") as bob, client("carol") as carol:
        # A context is private unless it is shared: Bob may write to this one, Carol may read it, nobody else sees it. Its
        # key is taken as long as it lives, so what an earlier run of this sample left goes first.
        try:
            old = await alice.contexts.get("plans/trip", payload=False)
            await alice.contexts.delete(old.id, if_rev=old.rev)
        except acb_sdk.NotFoundError:
            pass
        plan = await alice.contexts.share(
            "plans/trip", "book a train", type="plan", shares={"bob": "write", "carol": "read"}
        )
        print(f"alice shared {plan.key}, version {plan.version}")

        # Carol watches: first what is there, then every change, each once and in order.
        async with carol.contexts.watch(key="plans/trip", payloads_up_to=1024) as watch:
            # A change names the revision that it was made for. Bob is first; Alice's, made for the same one, is refused.
            await bob.contexts.update(plan.id, "book a train; find a hotel", if_rev=plan.rev)
            try:
                await alice.contexts.update(plan.id, "book a flight", if_rev=plan.rev)
            except acb_sdk.ConflictError as error:
                print(f"alice was late: {error.code}")

            # `modify` does what Alice should have done: it gets the plan, changes that, and begins anew if somebody is
            # faster.
            changed = await alice.contexts.modify("plans/trip", lambda plan: f"{plan.text}; pack")
            print(f"alice made version {changed.version}")

            seen = 0
            async for event in watch:
                if event.kind in ("state", "updated") and event.context is not None:
                    context = event.context
                    print(f"carol sees {context.version} by {context.updated_by}: {context.text}")
                    seen += 1
                if seen == 3:
                    break

    # To Dave it does not exist: what somebody must not see and what is not there answer alike.
    async with client("dave") as dave:
        try:
            await dave.contexts.get("plans/trip")
        except acb_sdk.NotFoundError as error:
            print(f"dave gets {error.code}")


if __name__ == "__main__":
    asyncio.run(main())
