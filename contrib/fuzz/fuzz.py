# SPDX-License-Identifier: GPL-3.0-or-later
"""Look for inputs that break the law of a parser, guided by the branches they reach.

    python contrib/fuzz/fuzz.py TARGET --seconds N

The targets and their laws are those of ``tests/laws.py`` and ``tests/whole.py``; ``--list`` names them. The corpus is
kept in ``.cache/fuzz/TARGET``, where the next run starts. A finding is written there too, as ``crash-...``,
``timeout-...`` or ``oom-...``, and ends the run with a status other than 0; a path after the target tries one such file
again.

Needs atheris, which nothing else does: see README.md.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MAX_LENGTH = 4096  # octets of an input; longer ones find the same branches, slower
TIMEOUT = 10  # seconds for one input: a thousand times what the slowest honest one takes
MEMORY = 1024  # MiB


def load() -> dict[str, object]:
    """The laws, with assay instrumented."""
    import atheris

    sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "milter")]
    with atheris.instrument_imports(include=["assay"]):
        import laws
        import whole  # noqa: F401 - it registers its law
    return dict(laws.LAWS)


def main() -> int:
    """Run one target, or one input of it."""
    parser = argparse.ArgumentParser(description="Fuzz one of assay's parsers.")
    parser.add_argument("target", nargs="?", help="the law to break")
    parser.add_argument("input", nargs="?", type=Path, help="a finding to try again, in place of fuzzing")
    parser.add_argument("--seconds", type=int, default=60, help="how long (default: 60)")
    parser.add_argument("--list", action="store_true", help="name the targets")
    arguments = parser.parse_args()
    try:
        import atheris
    except ImportError:
        parser.error("atheris is missing: pip install atheris")
    laws = load()
    if arguments.list or arguments.target is None:
        print("\n".join(laws))
        return 0
    law = laws.get(arguments.target)
    if law is None:
        parser.error(f"no target {arguments.target!r}; known are {', '.join(laws)}")
    if arguments.input is not None:
        law.check(arguments.input.read_bytes())
        print("the law holds")
        return 0
    corpus = ROOT / ".cache" / "fuzz" / law.name
    corpus.mkdir(parents=True, exist_ok=True)
    for seed in law.seeds:
        (corpus / hashlib.sha256(seed).hexdigest()[:16]).write_bytes(seed)
    words = corpus.with_suffix(".dict")
    words.write_text("# the words of the grammar\n" + "".join(f'"{_escaped(token)}"\n' for token in law.tokens))
    options = {
        "max_total_time": arguments.seconds,
        "max_len": MAX_LENGTH,
        "timeout": TIMEOUT,
        "rss_limit_mb": MEMORY,
        "artifact_prefix": f"{corpus}/",
        "dict": words,
        "print_final_stats": 1,
    }
    atheris.Setup([sys.argv[0], str(corpus), *(f"-{name}={value}" for name, value in options.items())], law.check)
    atheris.Fuzz()  # ends the process
    return 0


def _escaped(token: str) -> str:
    """A token as libFuzzer's dictionaries have it."""
    return "".join(
        chr(octet) if 0x20 < octet < 0x7F and chr(octet) not in '"\\' else f"\\x{octet:02X}" for octet in token.encode()
    )


if __name__ == "__main__":
    sys.exit(main())
