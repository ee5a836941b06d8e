"""The real server as a process, and the loops in which async tests run: asyncio's and uvloop's."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import os
import pathlib
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import acb_sdk

ROOT = pathlib.Path(__file__).resolve().parents[2]
READY_WITHIN = 30.0
names = itertools.count(1)

# The package is what was installed, not what lies here.
assert "site-packages" in acb_sdk.__file__, f"{acb_sdk.__file__} is not the installed package"


def free_port() -> int:
    """A port below those of outgoing connections."""
    for port in random.sample(range(18_000, 31_000), 100):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("no free port")


class Server:
    """A server that can be killed and started again on its folder; without ``dev`` it asks for credentials."""

    def __init__(self, folder: pathlib.Path, *, dev: bool = True) -> None:
        self.program = pathlib.Path(os.environ.get("ACB_SERVER_BIN", ROOT / "target/debug/acb-server"))
        if not self.program.is_file():
            pytest.fail(f"{self.program} is not built: cargo build --bin acb-server")
        self.folder, self.dev = folder, dev
        self.port, self.admin = free_port(), free_port()
        self.log = folder / "log"
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def endpoint(self) -> str:
        return f"acb://127.0.0.1:{self.port}"

    def start(self) -> None:
        command = [
            str(self.program), *(["--dev"] if self.dev else []), "--listen", f"127.0.0.1:{self.port}", "--admin-listen",
            f"127.0.0.1:{self.admin}", "--data-dir", str(self.folder / "data"),
        ]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("ACB_")}
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(command, stdout=out, stderr=out, env=environment)
        until = time.monotonic() + READY_WITHIN
        while not self.is_ready():
            if self.process.poll() is not None or time.monotonic() > until:
                pytest.fail(f"the server did not start:\n{self.log.read_text(errors='replace')[-4000:]}")
            time.sleep(0.01)

    def is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/ready", timeout=2) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.kill()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server"))
    yield server
    server.stop()


@pytest.fixture
def own_server(tmp_path: pathlib.Path) -> Iterator[Server]:
    """A server of one test, to be killed."""
    server = Server(tmp_path)
    yield server
    server.stop()


@pytest.fixture
def tenant() -> str:
    """A tenant that no other test has."""
    return f"t{os.getpid()}-{next(names)}"


@pytest.fixture
def endpoint(server: Server) -> str:
    return server.endpoint


@pytest.fixture
def async_face(endpoint: str, tenant: str) -> Callable[..., acb_sdk.AsyncClient]:
    """Makes clients of the async face, by name alone."""

    def make(agent: str, **options: Any) -> acb_sdk.AsyncClient:
        credentials = acb_sdk.Credentials.dev(agent, tenant=tenant)
        return acb_sdk.AsyncClient(endpoint, credentials=credentials, options=acb_sdk.Options(**options))

    return make


@pytest.fixture
def sync_face(endpoint: str, tenant: str) -> Callable[..., acb_sdk.Client]:
    """Makes clients of the sync face, by name alone."""

    def make(agent: str, **options: Any) -> acb_sdk.Client:
        credentials = acb_sdk.Credentials.dev(agent, tenant=tenant)
        return acb_sdk.Client(endpoint, credentials=credentials, options=acb_sdk.Options(**options))

    return make


def loops() -> list[str]:
    try:
        import uvloop  # noqa: F401
    except ImportError:
        return ["asyncio"]
    return ["asyncio", "uvloop"]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if inspect.iscoroutinefunction(metafunc.function):
        metafunc.fixturenames.append("loop_kind")
        metafunc.parametrize("loop_kind", loops())


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Runs async tests, each in a loop of its own."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    wanted = pyfuncitem._fixtureinfo.argnames
    arguments = {name: pyfuncitem.funcargs[name] for name in wanted}
    factory = None
    if pyfuncitem.callspec.params["loop_kind"] == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop

    async def bounded() -> None:
        async with asyncio.timeout(60):
            await pyfuncitem.obj(**arguments)

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(bounded())
    return True


def run_program(
    text: str, *arguments: str, timeout: float = 30.0, cwd: pathlib.Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs a program of its own with the installed package."""
    return subprocess.run(
        [sys.executable, "-P", "-c", text, *arguments],
        capture_output=True, text=True, timeout=timeout, check=False, cwd=cwd,
    )
