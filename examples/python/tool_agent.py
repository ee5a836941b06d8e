"""An agent to start from: a loop in which a model decides and tools act, where the tools are what other agents can do.

    acb-server --dev
    python tool_agent.py "how many words are in 'to be or not to be'?"

The model stands behind `Model`: put yours in its place. `RuleModel` is a deterministic stand-in, so that this runs
anywhere and a test can say what comes out. Tools are not written down here: whatever agents on the bus say that they can
do (their capabilities, with a schema of what each takes) is offered to the model, and a call of a tool is a request to the
agent that has it.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import acb_sdk

TURNS_MAX = 8
TOOL_TIMEOUT = 10.0


@dataclass(frozen=True)
class Tool:
    """Something that an agent on the bus can do."""

    name: str
    agent_id: str
    input_schema: str


@dataclass(frozen=True)
class ToolCall:
    """The model wants a tool to be used."""

    tool: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """The model is done."""

    text: str


@dataclass
class Turn:
    """What has happened so far, as the model sees it."""

    task: str
    results: list[tuple[ToolCall, Any]] = field(default_factory=list)


class Model(Protocol):
    """Decides what to do next."""

    async def decide(self, turn: Turn, tools: list[Tool]) -> ToolCall | Answer:
        """The next step, from the task, what tools gave so far, and what tools there are."""
        ...


class RuleModel:
    """A stand-in for a model: the same task, the same steps."""

    async def decide(self, turn: Turn, tools: list[Tool]) -> ToolCall | Answer:
        names = {tool.name for tool in tools}
        quoted = re.search(r"'([^']*)'", turn.task)
        text = quoted.group(1) if quoted else turn.task
        wanted = [
            name
            for name, word in (("text.count", "many"), ("text.reverse", "backwards"), ("text.shout", "shout"))
            if word in turn.task and name in names
        ]
        if len(turn.results) < len(wanted):
            return ToolCall(wanted[len(turn.results)], {"text": text})
        if not turn.results:
            return Answer("none of the agents that are here can do that")
        return Answer("; ".join(f"{call.tool}: {json.dumps(result)}" for call, result in turn.results))


async def discover_tools(bus: acb_sdk.AsyncClient) -> list[Tool]:
    """What agents that are online say that they can do."""
    tools = []
    async for agent in bus.agents.discover(status="online", type="tool"):
        tools += [Tool(c.name, agent.id, c.input_schema) for c in agent.capabilities]
    return tools


async def use(bus: acb_sdk.AsyncClient, tools: list[Tool], call: ToolCall) -> Any:
    """Asks the agent that has a tool. What fails is told to the model, which may try something else."""
    tool = next((tool for tool in tools if tool.name == call.tool), None)
    if tool is None:
        return {"error": f"no tool is called {call.tool}"}
    try:
        request = {"tool": call.tool, "arguments": call.arguments}
        reply = await bus.messages.request(tool.agent_id, request, timeout=TOOL_TIMEOUT)
        return reply.json()["result"]
    except acb_sdk.AcbError as error:
        return {"error": error.code}


async def solve(bus: acb_sdk.AsyncClient, model: Model, task: str) -> str:
    """The loop: the model decides, tools act, until it answers or has had its turns."""
    turn = Turn(task)
    for _ in range(TURNS_MAX):
        # Asked anew each time: agents come and go.
        tools = await discover_tools(bus)
        step = await model.decide(turn, tools)
        if isinstance(step, Answer):
            return step.text
        turn.results.append((step, await use(bus, tools, step)))
    return f"no answer within {TURNS_MAX} turns"


# --- two agents whose capabilities are tools ---------------------------------------------------------------------------

TEXT = json.dumps({"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]})


def tool_agent(functions: dict[str, Callable[[str], Any]]) -> Callable[[acb_sdk.AsyncMessage], Awaitable[Any]]:
    """A handler that runs the tool that a request names."""

    async def handle(message: acb_sdk.AsyncMessage) -> dict[str, Any]:
        request = message.json()
        return {"result": functions[request["tool"]](request["arguments"]["text"])}

    return handle


async def serve_tools(bus: acb_sdk.AsyncClient, agent_id: str, functions: dict[str, Callable[[str], Any]]) -> None:
    capabilities = [acb_sdk.Capability(name, version="1.0.0", input_schema=TEXT) for name in functions]
    await bus.agents.register(agent_id, type="tool", capabilities=capabilities)
    await bus.serve(tool_agent(functions))


def connect(agent_id: str) -> acb_sdk.AsyncClient:
    url = os.environ.get("ACB_URL", "acb://127.0.0.1:7400")
    return acb_sdk.AsyncClient(url, credentials=acb_sdk.Credentials.dev(agent_id))


async def main(task: str) -> None:
    async with connect("solver") as bus, connect("counter") as counter, connect("typesetter") as typesetter:
        await bus.agents.register("solver", type="solver")
        tools = [
            asyncio.create_task(serve_tools(counter, "counter", {"text.count": lambda text: len(text.split())})),
            asyncio.create_task(
                serve_tools(typesetter, "typesetter", {"text.reverse": lambda t: t[::-1], "text.shout": str.upper})
            ),
        ]
        # Until both are there: an agent is online when its inbox is open.
        while len(await discover_tools(bus)) < 3:
            await asyncio.sleep(0.01)
        print(await solve(bus, RuleModel(), task))
        for agent in (counter, typesetter):
            await agent.drain()
        await asyncio.gather(*tools)


if __name__ == "__main__":
    asyncio.run(main(" ".join(sys.argv[1:]) or "how many words are in 'to be or not to be', and what is it backwards?"))
