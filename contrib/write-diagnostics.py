# SPDX-License-Identifier: GPL-3.0-or-later
"""Collect every message that an operator can see, and write those of commands and configuration into the documentation.

    python contrib/write-diagnostics.py

The lines of the log have a table in ``docs/diagnostics.md`` that is written by hand, and a test compares it with
`log_lines`. The other messages name the fix themselves: this program writes their list. ``...`` is what varies.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

TOP = Path(__file__).resolve().parents[1]
PACKAGE = TOP / "milter" / "assay"
PAGE = TOP / "docs" / "diagnostics.md"
BEGIN, END = "<!-- messages: by contrib/write-diagnostics.py -->\n", "<!-- end of messages -->\n"
_LEVELS = ("error", "warning", "info", "debug")

#: What a variable in place of a text stands for.
_VARIABLES = {
    ("cli/serve.py", "text"): ("a worker serves ... sessions at a time, not ..., because of ...; raise it",),
    ("daemon/supervisor.py", "line"): ("... ... died (...)",),
    ("daemon/supervisor.py", "str(error)"): ("...: ...",),
    ("daemon/worker.py", "line"): (
        "DNS: of ... queries in a minute ...; about ...; to ...",
        "DNS: ...; expired answers used: ...",
    ),
    ("daemon/journal.py", "event(verdict, self.enterprise)"): ("[assay@... ...]",),
    ("session/publications.py", "_notice"): (
        "mail is signed with a key that the DNS does not publish at ...: ...; see: assay keys check",
        "the DNS publishes the key at ... again",
    ),
}
#: Lines of fields alone.
_FIELDS = {
    "(('event', 'argument is not UTF-8, ignored'), ('argument', repr(error.object)))": (
        'event="argument is not UTF-8, ignored" argument=...'
    ),
    "(('bug', repr(error)), ('at', _place(traceback)))": "bug=... at=...",
    "_describe(error)": "bug=... at=...",
    "(('queue', queue_id or '-'), ('action', action), *self.failure)": "queue=... action=... bug=... at=...",
    "(('queue', queue_id or '-'), ('action', action), ('problem', problem))": "queue=... action=... problem=...",
    "(('queue', queue_id or '-'), ('action', action), ('problem', 'the MTA did not name the client'))": (
        'queue=... action=... problem="the MTA did not name the client"'
    ),
    "(('queue', macro(context, 'i') or '-'), ('aborted', 'yes'), *self.failure)": (
        "queue=... aborted=yes bug=... at=..."
    ),
    "message_fields(verdict, waited=waits.get(Stage.EOM, 0.0))": (
        "queue=... client=... helo=... from=... rcpts=... ... action=... ms=..."
    ),
}


def log_lines() -> set[tuple[str, str]]:
    """All lines of the log: level and text."""
    found = {("warning", "... log lines were lost, because the log did not take them")}
    for path, node in _calls():
        name = _name(node.func)
        to_log = name in _LEVELS and isinstance(node.func, ast.Attribute) and _name(node.func.value) in ("log", "_log")
        if to_log:
            level = name
        elif name in ("tell", "_tell") and node.args and not path.startswith("cli/"):
            level = "warning"
        else:
            continue
        text = _text(node.args[0])
        if text is None:
            source = ast.unparse(node.args[0])
            known = [texts for (module, variable), texts in _VARIABLES.items() if module == path and variable in source]
            if not known:
                raise SystemExit(f"{path}:{node.lineno}: what is {source}? Write it into _VARIABLES")
            found |= {(level, one) for one in known[0]}
        elif text:
            found.add((level, text + (" ..." if len(node.args) > 1 else "")))
        else:
            found.add((level, _FIELDS[ast.unparse(node.args[1])]))
    return found


def messages() -> list[str]:
    """The messages of commands and of the configuration."""
    found = set()
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
                found |= {text for one in node.exc.args if (text := _text(one))}
            elif isinstance(node, ast.Call) and _prints(node):
                found |= {text for one in node.args[:1] if (text := _text(one))}
            elif isinstance(node, ast.Call) and _name(node.func) == "_tell" and path.name == "report_read.py":
                found.add(f"...: {_text(node.args[1])}")
            elif isinstance(node, ast.Call) and _name(node.func) == "complain":
                *command, text_of = map(_text, node.args)
                found |= {f"assay {command[0] or '...'}: {text_of or '...'}" if command else text_of or ""}
            elif isinstance(node, ast.Yield) and path.name in ("risks.py", "online.py") and node.value is not None:
                found |= {text for one in [node.value] if (text := _text(one))}
    return sorted((text for text in found if " " in text and _said(text)), key=lambda text: (text.lstrip(". :'"), text))


def _prints(node: ast.Call) -> bool:
    to_stderr = any(word.arg == "file" and "stderr" in ast.unparse(word.value) for word in node.keywords)
    return to_stderr or _name(node.func) in ("_complain", "_warn")


def _said(text: str) -> bool:
    """Whether a text says anything besides what varies."""
    return len(text.replace("...", "").strip(" :;,.()'")) > 3 and "\n" not in text


def _calls() -> Iterator[tuple[str, ast.Call]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                yield str(path.relative_to(PACKAGE)), node


def _text(node: ast.expr) -> str | None:
    """The text that an expression is, with ``...`` for what varies; None if all of it does."""
    match node:
        case ast.Constant(str(text)):
            return text
        case ast.JoinedStr(values):
            return "".join(map(_part, values))
        case ast.BinOp(left, ast.Add(), right):
            return f"{_text(left) or '...'}{_text(right) or '...'}"
    return None


def _part(node: ast.expr) -> str:
    match node:
        case ast.Constant(text):
            return str(text)
        case ast.FormattedValue(ast.Call(ast.Name("counted"), [_, ast.Constant(noun)])):
            return f"... {noun}s"
    return "..."


def _name(node: ast.expr) -> str:
    match node:
        case ast.Attribute(attr=name) | ast.Name(id=name):
            return name
    return ""


def listing() -> str:
    """The list as the page has it."""
    return BEGIN + "\n" + "".join(f"    {text}\n" for text in messages()) + "\n" + END


if __name__ == "__main__":
    page = PAGE.read_text()
    PAGE.write_text(page[: page.index(BEGIN)] + listing() + page[page.index(END) + len(END) :])
