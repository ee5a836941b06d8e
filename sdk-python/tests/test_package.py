"""The package as users get it: its names, its types, its stub, how long it takes to import, and what is in the wheel."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import subprocess
import sys
import zipfile

import pytest
from conftest import ROOT, Server, run_program

import acb_sdk

HERE = pathlib.Path(__file__).parent
CONFIG = HERE.parent / "pyproject.toml"
PYRIGHT = HERE.parent / "node_modules/.bin/pyright"


def run(*command: str, **options: object) -> None:
    environment = {**os.environ, "MYPYPATH": ""}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, check=False, cwd="/", env=environment, **options
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_names_are_pinned() -> None:
    assert sorted(acb_sdk.__all__, key=str.lower) == sorted(set(acb_sdk.__all__), key=str.lower)
    for name in acb_sdk.__all__:
        assert getattr(acb_sdk, name) is not None
    asyncs = {name.removeprefix("Async") for name in acb_sdk.__all__ if name.startswith("Async")}
    assert asyncs <= set(acb_sdk.__all__), "each async name has a sync one"
    for name in sorted(asyncs):
        left, right = getattr(acb_sdk, f"Async{name}"), getattr(acb_sdk, name)
        public = [{n for n in dir(face) if not n.startswith("_")} for face in (left, right)]
        assert public[0] == public[1], f"the faces of {name} differ"


def test_importing_costs_less_than_importing_asyncio() -> None:
    # Milliseconds are the benchmark's (`python-import`): a machine may be slow, and then it is for both.
    times: dict[str, list[float]] = {"acb_sdk": [], "asyncio": []}
    for _ in range(7):
        for module, took in times.items():
            # Of the processor: what else the machine does is not the import's.
            program = f"import time\nt = time.process_time()\nimport {module}\nprint(time.process_time() - t)"
            done = run_program(program)
            assert done.returncode == 0, done.stderr
            took.append(float(done.stdout))
    assert min(times["acb_sdk"]) < min(times["asyncio"]), times


def test_importing_pulls_in_no_event_loop_and_nothing_that_compiles_classes() -> None:
    modules = ("asyncio", "json", "dataclasses", "inspect")
    done = run_program(f"import sys, acb_sdk\nprint([m for m in {modules} if m in sys.modules])")
    assert done.stdout == "[]\n", done.stderr


@pytest.mark.parametrize("what", ["package", "user"])
def test_mypy_strict_finds_nothing(what: str, tmp_path: pathlib.Path) -> None:
    target = ["-p", "acb_sdk", "-p", "pytest_acb_sdk"] if what == "package" else [str(HERE / "typed_user.py")]
    run(sys.executable, "-m", "mypy", "--config-file", str(CONFIG), "--cache-dir", str(tmp_path), *target)


def test_the_stub_is_the_modules(tmp_path: pathlib.Path) -> None:
    allowed = tmp_path / "allowed"
    # Parameters of natives are positional for their one caller; what runtime type `Call` has generics of its own only here.
    allowed.write_text(
        "acb_sdk._native.__all__\nacb_sdk._native.Call.__class_getitem__\nacb_sdk._native.T_co\n"
        "acb_sdk._native.NativeTransfer.__class_getitem__\nacb_sdk._native.NativeWatch\n"
    )
    run(
        sys.executable, "-m", "mypy.stubtest", "acb_sdk._native", "--ignore-positional-only",
        "--ignore-disjoint-bases", "--ignore-unused-allowlist", "--allowlist", str(allowed),
        "--mypy-config-file", str(CONFIG),
    )


@pytest.mark.parametrize("what", ["package", "user"])
def test_pyright_strict_finds_nothing(what: str, tmp_path: pathlib.Path) -> None:
    if not PYRIGHT.exists():
        pytest.fail("pyright is not installed: scripts/setup-dev.sh test")
    package = pathlib.Path(acb_sdk.__file__).parent
    if what == "package":
        # A copy: pyright leaves out what lies in an environment.
        for name in ("acb_sdk", "pytest_acb_sdk"):
            ignored = shutil.ignore_patterns("*.so", "__pycache__")
            shutil.copytree(package.parent / name, tmp_path / name, ignore=ignored)
    else:
        shutil.copy(HERE / "typed_user.py", tmp_path)
    settings = {
        "typeCheckingMode": "strict", "pythonVersion": "3.11", "include": [str(tmp_path)],
        "extraPaths": [str(package.parent)] if what == "user" else [], "reportPrivateUsage": "none",
        "reportMissingModuleSource": "none",
    }
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    run(str(PYRIGHT), "-p", str(tmp_path), "--pythonpath", sys.executable)


def test_the_reference_is_what_the_package_says() -> None:
    run(sys.executable, "-P", str(ROOT / "scripts/python-reference.py"), "--check")


def test_the_typed_example_runs(server: Server, tenant: str) -> None:
    done = subprocess.run(
        [sys.executable, str(HERE / "typed_user.py"), server.endpoint, tenant],
        capture_output=True, text=True, timeout=60, check=False,
    )
    assert (done.returncode, done.stdout) == (0, '45\nagent_not_found\nFalse {"n":0}\n'), done.stderr


def test_the_wheel_has_the_package_and_nothing_else(tmp_path: pathlib.Path, server: Server, tenant: str) -> None:
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    (wheel,) = (target / "python/wheels").glob("*.whl")
    assert wheel.name.startswith("acb_sdk-") and "-cp311-abi3-" in wheel.name
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    top = {name.split("/")[0] for name in names}
    # The plugin lies beside the package, so that pytest finds it without importing the client.
    assert top == {"acb_sdk", "pytest_acb_sdk", f"acb_sdk-{acb_sdk.__version__}.dist-info"}
    assert {"acb_sdk/py.typed", "acb_sdk/_native.pyi", "acb_sdk/_native.abi3.so"} <= set(names)
    # Into an environment with nothing in it, and from the readme's first success.
    run(sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv"))
    python = tmp_path / "venv/bin/python"
    run(str(ROOT / ".venv/bin/pip"), "--python", str(python), "install", "-q", "--no-index", str(wheel))
    readme = (HERE.parent / "README.md").read_text()
    program = readme.split("```python\n")[1].split("```")[0].replace("acb://127.0.0.1:7400", server.endpoint)
    program = program.replace('dev("worker-1")', f'dev("worker-1", tenant="{tenant}")')
    done = subprocess.run([str(python), "-I", "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "worker-1 {'text': 'to myself'}\n"), done.stderr
