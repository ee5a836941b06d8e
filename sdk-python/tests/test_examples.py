"""The samples of `examples/python`: what they print is what they show."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from conftest import ROOT, Server


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
