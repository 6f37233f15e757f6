"""The configuration written down: ``etc/pipelined.toml`` and the reference, from its declarations.

``python -m pipelined.config.rendering toml`` (or ``reference``) prints the text of that file.
"""

from __future__ import annotations

import sys
import textwrap
from typing import Any

from pipelined.config.leaves import Leaf, sections
from pipelined.config.values import written

__all__ = ["to_reference", "to_toml"]

_WIDTH = 100

_HEAD = """\
# The configuration of pipelined: every key with its meaning, its unit, what is allowed and its default.
#
# Every value below is the default: change what you need, and leave out what you do not. Each key can also
# be set in the environment (its path in capitals, with underscores: PIPELINED_KAFKA_BOOTSTRAP) and on the
# command line (--set kafka.bootstrap=host:9092); the command line goes before the environment, and that
# before this file. `pipelinectl config check` finds what is wrong, `pipelinectl config show` tells where
# each value comes from. Secrets are written as references, "env:NAME" or "file:/path".
"""


def to_toml() -> str:
    """The text of ``etc/pipelined.toml``: valid TOML that equals the defaults."""
    lines = [_HEAD]
    explained: dict[str, str] = {}
    for section in sections():
        if section.path:
            lines += ["", *_comment(section.help), f"[{section.path}]"]
        first = explained.setdefault(section.type_name, section.path)
        if first != section.path:
            lines.append(f"# The keys are explained at [{first}].")
        for leaf in section.leaves:
            if first == section.path:
                lines += ["", *_comment(leaf.spec.help), *_comment(_facts(leaf))]
            lines += _assignment(leaf)
        lines.append("")
    return "\n".join(lines).rstrip("\n").replace("\n\n\n", "\n\n") + "\n"


def _comment(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False)


def _facts(leaf: Leaf) -> str:
    """Unit, limits and default, as far as there are any to tell in one line."""
    spec = leaf.spec
    facts = [f"Unit: {spec.unit}."] if spec.unit else []
    if allowed := spec.allowed():
        facts.append(f"Allowed: {allowed}.")
    default = written(leaf.default)
    facts.append(f"Default: {default if len(default) < 60 else 'as below'}.")
    return " ".join(facts)


def _assignment(leaf: Leaf) -> list[str]:
    line = f"{leaf.name} = {written(leaf.default)}"
    if len(line) <= _WIDTH or not leaf.many:
        return [line]
    rows = [""]
    for item in leaf.default:
        if len(rows[-1]) + len(written(item)) > _WIDTH - 8:
            rows.append("")
        rows[-1] += f" {written(item)},"
    return [f"{leaf.name} = [", *(f"   {row}" for row in rows), "]"]


def to_reference() -> str:
    """The reference of the configuration in Markdown: one table for each section."""
    lines = [
        "# Configuration",
        "",
        "Generated from the declarations in `pipelined/config`; do not edit. Each key is taken from the",
        "command line (`--set KEY=VALUE`), else from the environment, else from the file (`--config FILE`,",
        "else `$PIPELINED_CONFIG`, else `/etc/pipelined.toml`), else it has its default. Lists are comma",
        "separated in the environment and on the command line. An unknown key or a wrong value is an error,",
        "exit code 78.",
    ]
    for section in sections():
        lines += ["", f"## `{section.path}`" if section.path else "## Top level", ""]
        if section.help:
            lines += [section.help, ""]
        if section.leaves:
            lines += [
                "| key | default | unit | allowed | environment | meaning |",
                "|---|---|---|---|---|---|",
            ]
            lines += [_row(leaf) for leaf in section.leaves]
    return "\n".join(lines) + "\n"


def _row(leaf: Leaf) -> str:
    cells: list[Any] = [
        f"`{leaf.path}`",
        f"`{written(leaf.default)}`",
        leaf.spec.unit,
        leaf.spec.allowed(),
        f"`{leaf.variable}`",
        leaf.spec.help,
    ]
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"


_TEXTS = {"toml": to_toml, "reference": to_reference}

if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in _TEXTS:
        sys.exit(f"usage: python -m pipelined.config.rendering {'|'.join(_TEXTS)}")
    sys.stdout.write(_TEXTS[sys.argv[1]]())
