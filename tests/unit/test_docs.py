"""The documentation agrees with the code: what is generated, what is linked, what is typed."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from docs import commands, generate
from docs.codes import codes
from pipelined.cli.pipelinectl import pipelinectl
from pipelined.cli.pipelined import pipelined
from pipelined.config import WORKER_TYPES, load
from pipelined.config.leaves import leaves, sections
from pipelined.stats.registry import METRICS
from pipelined.stats.rendering import SUPERVISOR_METRICS

ROOT = Path(__file__).parents[2]
GROUPS = {"pipelined": pipelined, "pipelinectl": pipelinectl}
PAGES = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    *sorted(path for path in (ROOT / "docs").rglob("*.md")),
]
WRITTEN = [path for path in PAGES if path.parent.name != "reference"]
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def blocks(path: Path, language: str) -> list[str]:
    return [text for _, found, text in FENCE.findall(path.read_text()) if found == language]


def prose(path: Path) -> str:
    return FENCE.sub("", path.read_text())


def anchors(path: Path) -> set[str]:
    """The anchors of a page's headings, as they are made where it is shown."""
    headings = (heading.replace("`", "").lower() for heading in HEADING.findall(prose(path)))
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in headings}


CONTEXTS = [
    context
    for group_name, group in GROUPS.items()
    for context in commands.commands(group, click.Context(group, info_name=group_name))
]


@pytest.mark.parametrize("file", generate.GENERATED)
def test_a_committed_file_is_what_is_generated(file: str) -> None:
    assert (ROOT / file).read_text(encoding="utf-8") == generate.GENERATED[file](), "run: make docs"


def test_every_page_of_the_reference_is_generated() -> None:
    assert {name(path) for path in PAGES if path not in WRITTEN} == {
        file for file in generate.GENERATED if file.endswith(".md")
    }


def test_a_file_that_differs_is_found_and_named(tmp_path: Path) -> None:
    for file, render in generate.GENERATED.items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(render(), encoding="utf-8")
    assert generate.differing(tmp_path) == []
    (tmp_path / "docs/reference/cli.md").write_text("older", encoding="utf-8")
    (tmp_path / "docs/reference/tables.md").unlink()
    assert generate.differing(tmp_path) == ["docs/reference/cli.md", "docs/reference/tables.md"]


@pytest.mark.parametrize("context", CONTEXTS, ids=lambda context: context.command_path)
def test_a_command_and_each_of_its_options_have_help_and_are_in_the_reference(context: click.Context) -> None:
    assert context.command.help
    for option in context.command.params:
        assert isinstance(option, click.Argument) or getattr(option, "help", None), option.name
    reference = (ROOT / "docs/reference/cli.md").read_text()
    assert f"\n## {context.command_path}\n" in reference


@pytest.mark.parametrize("context", CONTEXTS, ids=lambda context: context.command_path)
def test_the_help_of_a_command_says_what_it_is_for_and_shows_it(context: click.Context) -> None:
    said = commands.purpose(context.command)
    assert 20 <= len(said) <= 130, "one sentence"
    if not isinstance(context.command, click.Group):
        shown = (context.command.help or "").partition("Example:\n")[2].strip().splitlines()
        assert shown, "an example"
        typed = [words for line in shown for words in commands_in(line) if words[0] in GROUPS]
        assert [wrong(words, whole=True) for words in typed] == [""] * len(typed)
        assert any({*context.command_path.split()} <= {*words} for words in typed), "of the command itself"


@pytest.mark.parametrize(
    "group",
    [each.command for each in CONTEXTS if isinstance(each.command, click.Group)],
    ids=lambda it: it.name,
)
def test_the_help_of_a_group_tells_of_each_of_its_commands_once_and_in_a_whole_sentence(
    group: click.Group,
) -> None:
    context = click.Context(group, info_name=group.name, terminal_width=80)
    told = " ".join(context.get_help().split())
    for name, command in group.commands.items():
        assert told.count(f"{name} {commands.purpose(command)}.") == 1
    assert "..." not in told.partition("COMMAND [ARGS]...")[2]


def raised() -> Iterator[str]:
    """The codes of all RecordErrors that are raised with a literal code."""
    kinds = {f"{kind}Error" for kind in ("Transient", "Permanent", "Auth", "Dependency", "Poison", "Bug")}
    for path in (ROOT / "pipelined").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in kinds and node.args:
                code = node.args[0]
                if isinstance(code, ast.Constant) and isinstance(code.value, str):
                    yield code.value


def test_every_literal_code_of_a_failure_is_in_the_reference() -> None:
    missing = set(raised()) - {code.code for code in codes()}
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_link_leads_to_a_page_and_a_heading_that_exist(page: Path) -> None:
    for link in LINK.findall(prose(page)):
        if "://" in link:
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_every_page_is_listed_in_the_index() -> None:
    index = ROOT / "docs" / "index.md"
    listed = {(index.parent / link.partition("#")[0]).resolve() for link in LINK.findall(index.read_text())}
    assert {path for path in PAGES if path.parent.parent.name == "docs"} <= listed


@pytest.mark.parametrize("path", sorted((ROOT / "pipelined").rglob("*.py")), ids=name)
def test_a_page_named_in_the_code_exists(path: Path) -> None:
    for page in re.findall(r"docs/[\w/-]+\.md", path.read_text()):
        assert (ROOT / page).exists(), page


def commands_in(line: str) -> list[list[str]]:
    """The commands of a line of shell, without their folders, what surrounds them, and where they write."""
    reader = shlex.shlex(line, posix=True, punctuation_chars=True)
    reader.whitespace_split = True
    commands: list[list[str]] = [[]]
    words = iter(reader)
    for word in words:
        if {*word} <= {*">&"} and ">" in word:
            next(words, "")
            if commands[-1][-1:] == ["2"]:
                commands[-1].pop()
        elif {*word} <= {*"|;()&"}:
            commands.append([])
        elif commands[-1] or not re.match(r"[A-Z_]+=", word):
            commands[-1].append(word)
    found = [words[3:] if words[:2] == ["sudo", "-u"] else words for words in commands if words]
    return [[words[0].rpartition("/")[2], *words[1:]] for words in found if words]


def shell_lines(path: Path) -> list[str]:
    text = "\n".join(blocks(path, "sh")).replace("\\\n", " ")
    return [line.strip() for line in text.splitlines() if line.strip()]


def wrong(words: list[str], *, whole: bool) -> str:
    """What is wrong with a command line of ours, "" if nothing is. ``whole``: no argument may be missing."""
    command: click.Command = GROUPS[words[0]]
    arguments: list[str] = []
    rest = iter(words[1:])
    for word in rest:
        if word.startswith("--"):
            option = next((each for each in command.params if word in each.opts), None)
            if option is None:
                return f"{command.name} has no option {word}"
            value = None if getattr(option, "is_flag", False) else next(rest, "")
            if word == "--set" and (value or "").partition("=")[0] not in {*KEYS, "KEY"}:
                return f"no key {value}"
            if word == "--worker" and value not in {*WORKER_TYPES, "TYPE"}:
                return f"no worker type {value}"
        elif isinstance(command, click.Group):
            if word not in command.commands:
                return f"{command.name} has no command {word}"
            command = command.commands[word]
        else:
            arguments.append(word)
    wanted = [each for each in command.params if isinstance(each, click.Argument)]
    most = len(arguments) if any(each.nargs == -1 for each in wanted) else len(wanted)
    if len(arguments) > most or (whole and len(arguments) < sum(each.required for each in wanted)):
        return f"{command.name} takes other arguments than {arguments}"
    if command.name in {"start", "stop"} and not {*arguments} <= {*WORKER_TYPES, "TYPE"}:
        return f"no worker type {arguments}"
    return f"{command.name} is no command by itself" if whole and isinstance(command, click.Group) else ""


KEYS = {leaf.path for leaf in leaves()}
MAKEFILE = (ROOT / "Makefile").read_text()


def wrong_make(words: list[str]) -> str:
    for word in words[1:]:
        variable, equals, _ = word.partition("=")
        if equals and not re.search(rf"\$\({variable}\)|\$\(if \$\({variable}\)", MAKEFILE):
            return f"the Makefile has no variable {variable}"
        if not equals and not re.search(rf"^{word}:", MAKEFILE, re.MULTILINE):
            return f"the Makefile has no target {word}"
    return ""


@pytest.mark.parametrize("page", WRITTEN, ids=name)
def test_every_command_line_shown_is_one_that_parses(page: Path) -> None:
    for line in shell_lines(page):
        for words in commands_in(line):
            if words[0] in GROUPS:
                assert not wrong(words, whole=True), f"{line}: {wrong(words, whole=True)}"
            if words[0] == "make":
                assert not wrong_make(words), f"{line}: {wrong_make(words)}"


@pytest.mark.parametrize("page", WRITTEN, ids=name)
def test_every_command_named_in_a_sentence_exists(page: Path) -> None:
    for text in INLINE.findall(prose(page)):
        words = text.split()
        words[0] = words[0].rpartition("/")[2]
        if words[0] in GROUPS and len(words) > 1:
            assert not wrong(words, whole=False), f"{text}: {wrong(words, whole=False)}"
        if words[0] == "make" and len(words) > 1:
            assert not wrong_make(words), f"{text}: {wrong_make(words)}"


def test_the_commands_of_a_line_are_found_wherever_they_stand() -> None:
    line = (
        "A=b sudo -u pipelined /opt/pipelined/bin/pipelinectl status | grep x && pipelined run >>o 2> e # now"
    )
    assert commands_in(line) == [["pipelinectl", "status"], ["grep", "x"], ["pipelined", "run"]]
    assert ["pipelinectl", "status"] in commands_in("kill -9 $(bin/pipelinectl status | awk '{ print $3 }')")


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("pipelinectl stauts", "no command stauts"),
        ("pipelinectl status --all", "no option --all"),
        ("pipelinectl load", "other arguments"),
        ("pipelinectl topics", "no command by itself"),
        ("pipelinectl stop downloads", "no worker type"),
        ("pipelined --set kafka.boostrap=a:1 run", "no key"),
        ("pipelined run --worker writer", "no worker type"),
    ],
)
def test_a_command_line_that_does_not_parse_is_noticed(line: str, problem: str) -> None:
    assert problem in wrong(line.split(), whole=True)


@pytest.mark.parametrize("page", WRITTEN, ids=name)
def test_every_key_and_metric_named_exists(page: Path) -> None:
    known_sections = {section.path for section in sections()}
    top = {path.partition(".")[0] for path in known_sections if path}
    metrics = {metric.name for metric in METRICS} | {name for name, *_ in SUPERVISOR_METRICS}
    for text in INLINE.findall(prose(page)):
        is_key = re.fullmatch(r"[a-z_]+(\.[a-z_]+)+", text) and ".example." not in text
        if is_key and text.partition(".")[0] in top:
            assert text in KEYS | known_sections, text
        if text.startswith("pipelined_"):
            assert text in metrics, text


@pytest.mark.parametrize(
    ("page", "text"),
    [(page, text) for page in WRITTEN for text in blocks(page, "toml")],
    ids=lambda each: name(each) if isinstance(each, Path) else "",
)
def test_every_configuration_shown_is_valid(page: Path, text: str, tmp_path: Path) -> None:
    file = tmp_path / f"{page.stem}.toml"
    file.write_text(text)
    assert load(file, environ={}).origins


@pytest.mark.parametrize("page", WRITTEN, ids=name)
def test_every_program_shown_is_valid_python(page: Path) -> None:
    for text in blocks(page, "python"):
        assert ast.parse(text).body
