"""The samples of `examples/python`: what they print is what they show."""

from __future__ import annotations

import asyncio
import hashlib
import importlib
import os
import pathlib
import re
import subprocess
import sys
import textwrap
from typing import Any

import pytest
from conftest import ROOT, Server, run_program

import acb_sdk
from acb_sdk.testing import AsyncFakeBus


def lines(server: Server, name: str, *arguments: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-P", str(ROOT / "examples/python" / name), *arguments],
        capture_output=True, text=True, timeout=60, check=False, env={**os.environ, "ACB_URL": server.endpoint},
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_agents_exchange_messages_and_another_hears_what_is_published(own_server: Server) -> None:
    heard = ["bob got 'hello, bob' from alice", "the listener heard 'bob has mail' on news.today"]
    assert lines(own_server, "exchange_messages.py") == ["alice sent inbox-0-1-1", *heard]
    assert lines(own_server, "exchange_messages.py") == ["alice sent inbox-0-1-2", *heard]


def test_one_agent_asks_and_another_answers(own_server: Server) -> None:
    answers = ["'how many words are these?' has 5 words", "'one' has 1 words", "'' has 0 words"]
    assert lines(own_server, "request_reply.py") == ["nobody answers: agent_not_found", *answers]
    assert lines(own_server, "request_reply.py") == ["nobody answers: no_responders", *answers]


def test_a_context_is_shared_and_nobody_overwrites_another_unseen(own_server: Server) -> None:
    # A second run finds what the first one left, and does the same again.
    for _ in range(2):
        assert lines(own_server, "share_context.py") == [
            "alice shared plans/trip, version 0.1.0",
            "alice was late: revision_conflict",
            "alice made version 0.1.2",
            "carol sees 0.1.0 by alice: book a train",
            "carol sees 0.1.1 by bob: book a train; find a hotel",
            "carol sees 0.1.2 by alice: book a train; find a hotel; pack",
            "dave gets context_not_found",
        ]


def test_a_large_context_goes_up_and_comes_down_the_same(own_server: Server, tmp_path: pathlib.Path) -> None:
    # Of a size that takes no time; without a file it makes one of 64 MB.
    content = "".join(f"{number:07}\n" for number in range(1_000_000)).encode()
    source = tmp_path / "numbers"
    source.write_bytes(content)
    assert lines(own_server, "stream_large_context.py", str(source)) == [
        "uploaded 8000000 bytes as one context, version 0.1.0",
        f"its SHA-256 is {hashlib.sha256(content).hexdigest()}",
        "downloaded 8000000 bytes, the digest is the same",
        "its first bytes are b'0000000\\n0000001\\n'",
    ]


@pytest.mark.parametrize(
    ("task", "answer"),
    [
        ("how many words are in 'to be or not to be'?", "text.count: 6"),
        ("shout 'hello', and how many words?", 'text.count: 1; text.shout: "HELLO"'),
        ("make coffee", "none of the agents that are here can do that"),
    ],
)
def test_an_agent_solves_its_task_with_what_others_can_do(own_server: Server, task: str, answer: str) -> None:
    assert lines(own_server, "tool_agent.py", task) == [answer]


def test_findings_are_merged_as_the_workers_in_rust_do_it() -> None:
    # The same words as the tests of `findings.rs`.
    program = """
import json, findings
def finding(language, lines):
    return {"language": language, "lines": lines, "longest_line": lines, "sha256": ""}
empty = {"merged": "", "languages": {}}
print(findings.add(empty, [(17, finding("C", 1))]), json.dumps(empty, separators=(",", ":")))
twice = {"merged": "", "languages": {}}
news = [findings.add(twice, [(9, finding("Rust", 3))]) for _ in range(2)] + [findings.add(twice, [(8, finding("Rust", 4))])]
print(news, twice["languages"])
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT / "examples/python/demo")},
    )
    assert done.stdout.splitlines() == [
        '1 {"merged":"000002","languages":{"C":[1,1,1]}}', "[1, 0, 1] {'Rust': [2, 7, 4]}",
    ], done.stderr


# Guides with Python, and the first and the last line that it prints.
PRINTED = {
    "messaging": ["5 words"],
    "contexts": ['state {"steps":["book","pack","go"]}', "synced None"],
    "streaming": ["0 None", "5000 "],
}


def test_no_guide_has_python_that_nobody_runs() -> None:
    guides = (ROOT / "docs/guide").glob("*.md")
    # The guide to testing is run by pytest: `test_testing.py`. That to credentials needs a server that asks for some.
    # The quickstart's is a whole program, and run as the readme's is.
    run = {*PRINTED, "testing", "authentication", "quickstart"}
    assert {guide.stem for guide in guides if "```python" in guide.read_text(encoding="utf-8")} == run


@pytest.mark.parametrize("guide", PRINTED)
def test_what_the_guides_say_in_python_runs(own_server: Server, tmp_path: pathlib.Path, guide: str) -> None:
    printed = PRINTED[guide]
    page = (ROOT / f"docs/guide/{guide}.md").read_text(encoding="utf-8")
    blocks = [block.split("```")[0] for block in page.split("```python\n")[1:]]
    assert blocks, "the guide says nothing in Python"
    body = textwrap.indent("".join(blocks), "        ")
    program = f"""
import acb_sdk, asyncio
async def main():
    async with acb_sdk.AsyncClient({own_server.endpoint!r}, credentials=acb_sdk.Credentials.dev("reader")) as bus:
{body}
asyncio.run(main())
"""
    (tmp_path / "archive.tar").write_bytes(b"an archive" * 500)
    done = run_program(program, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    shown = done.stdout.splitlines()
    assert len(shown) >= len(printed), shown
    assert shown[0] == printed[0] and shown[-1].startswith(printed[-1]), shown
    if guide == "streaming":
        assert (tmp_path / "copy.tar").read_bytes() == b"an archive" * 500


def test_what_the_guide_to_credentials_says_in_python_runs(tmp_path: pathlib.Path) -> None:
    server = Server(tmp_path, dev=False)
    try:
        (admin_key,) = set(re.findall(r"acb_default_[A-Za-z0-9_-]*", server.log.read_text(encoding="utf-8")))
        admin = acb_sdk.Credentials.enrolment_key(admin_key, "admin")
        with acb_sdk.Client(server.endpoint, credentials=admin) as root:
            made = root.admin.create_enrolment_key("survey team", agent_pattern="survey-*", roles=["agent-full"])
        (tmp_path / "team.key").write_text(made.secret + "\n", encoding="utf-8")
        page = (ROOT / "docs/guide/authentication.md").read_text(encoding="utf-8")
        (block,) = [block.split("```")[0] for block in page.split("```python\n")[1:]]
        body = textwrap.indent(block.replace("acb://127.0.0.1:7400", server.endpoint), "    ")
        program = f"import acb_sdk, asyncio, pathlib\nasync def main():\n{body}\nasyncio.run(main())\n"
        done = run_program(program, cwd=tmp_path)
        assert (done.stdout, done.stderr) == ("survey-2 ['agent-full']\n", "")
    finally:
        server.stop()


@pytest.mark.parametrize(
    ("page", "shown"),
    [
        ("docs/guide/quickstart.md", "reader sent '2 3'"),
        ("README.md", "planner asks: {'survey': 'src/main.rs'}"),
        ("sdk-python/README.md", "worker-1 {'text': 'to myself'}"),
    ],
)
def test_the_first_success_in_python_is_one(own_server: Server, page: str, shown: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    (program,) = [block.split("```")[0] for block in text.split("```python\n")[1:]]
    assert "acb://127.0.0.1:7400" in program
    done = run_program(program.replace("acb://127.0.0.1:7400", own_server.endpoint))
    assert (done.stdout.splitlines(), done.stderr) == ([shown], "")


async def test_the_planner_of_the_demo_goes_on_where_a_lease_ends_before_its_ack(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "examples/python/demo"))
    async with AsyncFakeBus() as bus:
        client, worker = await bus.client("planner"), await bus.client("worker")
        await client.agents.register("planner")
        plan = importlib.import_module("planner").Plan(client, [{"name": "a", "path": "a"}])
        settle, again = plan.settle, asyncio.Event()

        async def settle_over_a_restart(*answer: Any) -> None:
            if plan.table:
                again.set()
            else:
                events = client.events()
                await bus.restart()
                async for event in events:
                    if event.name == "resumed":
                        break
            await settle(*answer)

        monkeypatch.setattr(plan, "settle", settle_over_a_restart)
        async with client.inbox() as inbox:
            gathering = asyncio.create_task(plan.gather(inbox))
            await worker.messages.send("planner", {"file": "a", "finding": {"language": "C", "lines": 1}})
            came_again = asyncio.create_task(again.wait())
            await asyncio.wait([gathering, came_again], timeout=20, return_when=asyncio.FIRST_COMPLETED)
            assert again.is_set() and not gathering.done(), gathering
            gathering.cancel()
