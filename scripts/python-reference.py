#!/usr/bin/env python3
"""Writes docs/sdk-reference/python.md from the installed package's own words. Run by the environment's interpreter:

    target/python/venv/bin/python -P scripts/python-reference.py [--check]
"""

import ast
import dataclasses
import importlib.util
import inspect
import pathlib
import re
import sys

import acb_sdk
import acb_sdk.testing

OUT = pathlib.Path(__file__).resolve().parents[1] / "docs/sdk-reference/python.md"
# The order in which people meet them.
FACES = [
    ("The client", ["AsyncClient"]),
    ("Nouns", ["AsyncAgents", "AsyncContexts", "AsyncMessages", "AsyncPublisher", "AsyncSubscriptions", "AsyncDeadLetters",
               "AsyncAuth", "AsyncAdmin", "AsyncPages", "AsyncContextPages", "AsyncEvents"]),
    ("Watching", ["AsyncWatch"]),
    ("Receiving", ["AsyncSubscription", "AsyncMessage", "AsyncReceipt", "KeptLease", "Published"]),
]
PLAIN = ["Credentials", "Options", "Tls"]
# Of `acb_sdk.testing`, and what pytest finds beside it.
TESTING = ["AsyncFakeBus", "Network"]
PLUGIN = "pytest_acb_sdk"


def natives() -> dict[str, ast.ClassDef]:
    """What the native classes look like, from their stub."""
    stub = pathlib.Path(acb_sdk.__file__).parent / "_native.pyi"
    return {node.name: node for node in ast.parse(stub.read_text()).body if isinstance(node, ast.ClassDef)}


def line(text: str | None) -> str:
    return " ".join(inspect.cleandoc(text).split("\n\n")[0].split()) if text else ""


def members_of_native(name: str, stubs: dict[str, ast.ClassDef]) -> list[tuple[str, str]]:
    out = []
    node = stubs[name]
    for base in node.bases:
        if isinstance(base, ast.Name) and base.id in stubs:
            out += members_of_native(base.id, stubs)
    for item in node.body:
        if not isinstance(item, ast.FunctionDef) or item.name.startswith("_"):
            continue
        is_property = any(isinstance(d, ast.Name) and d.id == "property" for d in item.decorator_list)
        item.args.args = item.args.args[1:]
        returns = ast.unparse(item.returns) if item.returns else "None"
        shown = f"{item.name}: {returns}" if is_property else f"{item.name}({ast.unparse(item.args)}) -> {returns}"
        out.append((shown, line(ast.get_docstring(item))))
    return out


def members(cls: type) -> list[tuple[str, str]]:
    out = []
    for name, value in vars(cls).items():
        if name.startswith("_"):
            continue
        if isinstance(value, property):
            out.append((f"{name}: {value.fget.__annotations__.get('return', '')}", line(value.__doc__)))
        elif inspect.isfunction(value):
            signature = str(inspect.signature(value)).replace("(self, ", "(").replace("(self)", "()").replace("'", "")
            prefix = "await " if inspect.iscoroutinefunction(value) else ""
            out.append((f"{prefix}{name}{signature}", line(value.__doc__)))
        elif isinstance(value, classmethod):
            signature = str(inspect.signature(value.__func__)).replace("(cls, ", "(").replace("'", "")
            out.append((f"{cls.__name__}.{name}{signature}", line(value.__func__.__doc__)))
    return out


def inherited(cls: type) -> list[tuple[str, str]]:
    """Its members, and those of its bases in this package."""
    return [found for base in cls.__mro__ if base.__module__.startswith("acb_sdk.") for found in members(base)]


def fixtures() -> list[tuple[str, str]]:
    """The plugin's fixtures, from its source: nothing that pytest made of them has their words."""
    spec = importlib.util.find_spec(PLUGIN)
    assert spec is not None and spec.origin is not None, f"{PLUGIN} is not installed"
    made = ast.parse(pathlib.Path(spec.origin).read_text()).body
    return [(node.name, line(ast.get_docstring(node))) for node in made if isinstance(node, ast.FunctionDef)]


def testing() -> list[str]:
    out = ["", "## Testing: `acb_sdk.testing`", "", "How to: [guide](../guide/testing.md#in-python)."]
    for name in TESTING:
        cls = getattr(acb_sdk.testing, name)
        out += ["", f"### `{name}`", "", *(inspect.getdoc(cls) or "").splitlines(), ""]
        if cls.__init__ is not object.__init__ and name != "Network":
            signature = re.sub(r": '([^']*)'", r": \1", str(inspect.signature(cls))).replace(" -> 'None'", "")
            out.append(f"- `{name}{signature}`")
        out += [f"- `{shown}`" + (f": {text}" if text else "") for shown, text in inherited(cls)]
    out += ["", "### Fixtures of pytest", "", "Found by pytest where the wheel is installed; no import is needed.", ""]
    return out + [f"- `{name}`: {text}" for name, text in fixtures()]


def write() -> str:
    stubs = natives()
    out = [
        "<!-- Written by scripts/python-reference.py from the package's docstrings. Do not edit. -->",
        "",
        "# Python: `acb_sdk`",
        "",
        "The async face. The sync one has the same names without `Async` and without `await`: `Client`, `Messages`,",
        "`Subscription` and so on. Every `timeout` is in seconds; every failure is an `AcbError`.",
    ]
    for title, names in FACES:
        out += ["", f"## {title}"]
        for name in names:
            cls = getattr(acb_sdk, name)
            native = name in stubs
            doc = ast.get_docstring(stubs[name]) if native else inspect.getdoc(cls)
            out += ["", f"### `{name}`", "", *(doc or "").splitlines(), ""]
            found = members_of_native(name, stubs) if native else members(cls)
            out += [f"- `{shown}`" + (f": {text}" if text else "") for shown, text in found]
    out += ["", "## Options"]
    for name in PLAIN:
        cls = getattr(acb_sdk, name)
        out += ["", f"### `{name}`", "", *(inspect.getdoc(cls) or "").splitlines(), ""]
        out += [f"- `{shown}`: {text}" for shown, text in members(cls) if not shown.startswith("to_native")]
        if name != "Credentials":
            for f in dataclasses.fields(cls):
                default = "" if f.default is dataclasses.MISSING else f" = {f.default!r}"
                out.append(f"- `{f.name}: {f.type}{default}`")
    out += ["", "## Values", ""]
    values = [n for n in acb_sdk.__all__ if dataclasses.is_dataclass(getattr(acb_sdk, n)) and n not in PLAIN]
    for name in values:
        cls = getattr(acb_sdk, name)
        fields = ", ".join(f"`{f.name}: {f.type}`" for f in dataclasses.fields(cls))
        out.append(f"- **`{name}`**: {line(cls.__doc__)} {fields}")
    out += testing()
    out += ["", "## Exceptions", "", "```text", *(sys.modules["acb_sdk._errors"].__doc__ or "").splitlines()[2:16], "```"]
    return "\n".join(out).rstrip() + "\n"


if __name__ == "__main__":
    text = write()
    if sys.argv[1:] == ["--check"]:
        if not OUT.exists() or OUT.read_text() != text:
            sys.exit(f"{OUT} is stale: run {sys.argv[0]} without --check")
    else:
        OUT.write_text(text)
        print(f"wrote {OUT}")
