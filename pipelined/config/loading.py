"""Loading the configuration: command line, environment, file, default; every problem at once."""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pipelined.config import checks
from pipelined.config.leaves import VARIABLE_PREFIX, Leaf, built, leaves, sections
from pipelined.config.secrets import variable_of
from pipelined.config.tree import Config
from pipelined.config.values import ValueRefusedError, from_text, from_toml
from pipelined.errors import ConfigError

T = TypeVar("T")

__all__ = [
    "COMMAND_LINE",
    "DEFAULT",
    "DEFAULT_FILE",
    "FILE_VARIABLE",
    "RESERVED",
    "WHEREABOUTS",
    "Loaded",
    "load",
    "salvage",
]

DEFAULT_FILE = Path("/etc/pipelined.toml")
FILE_VARIABLE = "PIPELINED_CONFIG"
#: Variables of this prefix that are no keys: the file to load, and where the local stack keeps what it
#: fetched.
RESERVED = frozenset({FILE_VARIABLE, "PIPELINED_CACHE", "PIPELINED_CRASH_POINTS"})

#: The keys that say where a daemon is: its control socket, and the lock with its pid.
WHEREABOUTS = ("runtime_dir", "state_dir")

DEFAULT = "default"
COMMAND_LINE = "command line"
_ENVIRONMENT = "environment "


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration, and for every key (by its path) where its value came from, in words.

    An origin is "default", the file's path, "environment NAME" or "command line". ``file`` is None where
    none is named and the default one is not there.
    """

    config: Config
    origins: dict[str, str]
    file: Path | None

    def summary(self) -> str:
        """How many keys there are, and how many of them are set where."""
        places = Counter(_place(origin) for origin in self.origins.values() if origin != DEFAULT)
        told = [f"{count} set {place}" for place, count in places.items()] or ["none of them set"]
        if self.file is None:
            told.append(f"there is no {DEFAULT_FILE}")
        return ", ".join([f"{len(self.origins)} keys", *told])


def _place(origin: str) -> str:
    if origin == COMMAND_LINE:
        return "on the command line"
    return "in the environment" if origin.startswith(_ENVIRONMENT) else f"in {origin}"


@dataclass(slots=True)
class _Gathering:
    """What was found so far; a later source replaces what an earlier one gave."""

    leaves: dict[str, Leaf] = field(default_factory=lambda: {leaf.path: leaf for leaf in leaves()})
    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    wrong: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.origins = dict.fromkeys(self.leaves, DEFAULT)

    def put(self, path: str, origin: str, convert: Callable[[Leaf, T], Any], given: T) -> None:
        """Take what was given for a known key, through ``convert``."""
        self.origins[path] = origin
        try:
            self.values[path] = convert(self.leaves[path], given)
            self.wrong.discard(path)
        except ValueRefusedError as problem:
            self.wrong.add(path)
            self.problems.append(f"{path} ({origin}): {problem}")


def load(
    file: Path | None = None,
    overrides: Sequence[str] = (),
    environ: Mapping[str, str] | None = None,
) -> Loaded:
    """Build the configuration from defaults, file, environment and ``overrides`` ("kafka.host=a").

    The file is ``file``, else $PIPELINED_CONFIG, else /etc/pipelined.toml where there is one. Raises
    ConfigError with every problem of every source: unknown keys, wrong values, values that do not fit
    together, a file that cannot be read. Whether referenced secrets exist is not looked at here.
    """
    environ = os.environ if environ is None else environ
    found = _Gathering()
    _from_file(found, file, environ)
    _from_environment(found, environ)
    _from_overrides(found, overrides)
    _unknown_variables(found, environ)
    config = built(found.values)
    for problem in checks.run(config):
        if not found.wrong.intersection(problem.keys):
            origins = ", ".join(f"{key} from {found.origins[key]}" for key in problem.keys)
            found.problems.append(f"{problem.text} ({origins})")
    if found.problems:
        raise ConfigError(found.problems)
    return Loaded(config, found.origins, _chosen(file, environ))


def salvage(
    file: Path | None = None,
    overrides: Sequence[str] = (),
    environ: Mapping[str, str] | None = None,
) -> Loaded:
    """What is right in a configuration that :func:`load` refuses, the default for each other key.

    Enough to find a daemon, never to start one: of a file that is no TOML it has the keys of WHEREABOUTS
    alone. Raises ConfigError where these cannot be told for sure, since the default may be another daemon's:
    the file cannot be read, the value of one is wrong; or where the command line itself is wrong.
    """
    environ = os.environ if environ is None else environ
    asked = _Gathering()
    _from_overrides(asked, overrides)
    if asked.problems:
        raise ConfigError(asked.problems)
    found = _Gathering()
    if not _from_file(found, file, environ):
        _whereabouts_by_line(found, file, environ)
    _from_environment(found, environ)
    _from_overrides(found, overrides)
    if unsure := found.wrong.intersection(WHEREABOUTS):
        wanted = " ".join(f"--set {path}=FOLDER" for path in WHEREABOUTS if path in unsure)
        hint = f"which daemon is meant cannot be told: give it with {wanted}"
        raise ConfigError([*found.problems, hint])
    return Loaded(built(found.values), found.origins, _chosen(file, environ))


def _whereabouts_by_line(found: _Gathering, file: Path | None, environ: Mapping[str, str]) -> None:
    """Take these from the lines above the first section, each by itself, where the file is no TOML."""
    file = _chosen(file, environ)
    assert file is not None, "it could not be taken"
    try:
        text = file.read_text(encoding="utf-8-sig", errors="replace")
    except OSError:
        found.wrong.update(WHEREABOUTS)
        return
    for line in text.splitlines():
        if line.lstrip().startswith("["):
            return
        for path in WHEREABOUTS:
            if re.match(rf"\s*[\"']?{path}\b", line):
                _take_line(found, path, line, str(file))


def _take_line(found: _Gathering, path: str, line: str, origin: str) -> None:
    try:
        value = tomllib.loads(line)[path]
    except (tomllib.TOMLDecodeError, KeyError):
        found.wrong.add(path)
    else:
        found.put(path, origin, from_toml, value)


def _chosen(file: Path | None, environ: Mapping[str, str]) -> Path | None:
    """The file to load; None where none is named and the default is not there."""
    if file is None and (named := environ.get(FILE_VARIABLE)):
        file = Path(named)
    if file is None and DEFAULT_FILE.exists():
        file = DEFAULT_FILE
    return file


def _from_file(found: _Gathering, file: Path | None, environ: Mapping[str, str]) -> bool:
    """Take the file's keys, if there is one; False where it cannot be read as TOML."""
    file = _chosen(file, environ)
    if file is None:
        return True
    try:
        tree = tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        found.problems.append(f"{file}: cannot be read: {error.strerror or error}")
    except UnicodeDecodeError as error:
        found.problems.append(f"{file}: is not UTF-8 text (byte {error.start})")
    except tomllib.TOMLDecodeError as error:
        found.problems.append(f"{file}: is not valid TOML: {error}")
    else:
        _take_table(found, tree, "", str(file))
        return True
    return False


def _take_table(found: _Gathering, table: Mapping[str, object], prefix: str, origin: str) -> None:
    known_sections = {section.path for section in sections()}
    for name, value in table.items():
        path = prefix + name
        if path in found.leaves:
            found.put(path, origin, from_toml, value)
        elif path in known_sections and isinstance(value, dict):
            _take_table(found, value, path + ".", origin)
        elif path in known_sections:
            found.problems.append(f"{path} ({origin}): is a section: write [{path}] and its keys below it")
        elif isinstance(value, dict):
            near = _nearest(path, known_sections - {""})
            found.problems.append(f"[{path}] ({origin}): unknown section; the nearest is [{near}]")
        else:
            near = _nearest(path, found.leaves)
            found.problems.append(f"{path} ({origin}): unknown key; the nearest is {near}")
            if near in WHEREABOUTS:
                found.wrong.add(near)


def _from_environment(found: _Gathering, environ: Mapping[str, str]) -> None:
    by_variable = {leaf.variable: path for path, leaf in found.leaves.items()}
    for name, text in sorted(environ.items()):
        if name in by_variable:
            found.put(by_variable[name], f"{_ENVIRONMENT}{name}", from_text, text)


def _unknown_variables(found: _Gathering, environ: Mapping[str, str]) -> None:
    """After all sources: a secret may be kept in a variable of our prefix, if a key refers to it."""
    secrets = {found.values.get(path, "") for path, leaf in found.leaves.items() if leaf.spec.secret}
    known = {leaf.variable for leaf in found.leaves.values()} | RESERVED
    referenced = {variable_of(reference) for reference in secrets}
    for name in sorted(environ.keys() - known - referenced):
        if name.startswith(VARIABLE_PREFIX):
            found.problems.append(
                f"environment {name}: no key has this variable; the nearest is {_nearest(name, known)}"
            )


def _from_overrides(found: _Gathering, overrides: Sequence[str]) -> None:
    for number, override in enumerate(overrides, 1):
        path, equals, text = override.partition("=")
        path = path.strip()
        if not equals:
            # What follows the key may be a secret that was meant to be its value.
            shown = re.match(r"[\w.-]*", path)
            found.problems.append(
                f"{shown[0] if shown else ''} ({COMMAND_LINE}, setting {number}): expected KEY=VALUE"
            )
        elif path in found.leaves:
            found.put(path, COMMAND_LINE, from_text, text)
        else:
            near = _nearest(path, found.leaves)
            found.problems.append(f"{path} ({COMMAND_LINE}): unknown key; the nearest is {near}")


def _nearest(name: str, known: Iterable[str]) -> str:
    return max(
        sorted(known), key=lambda each: difflib.SequenceMatcher(None, name.lower(), each.lower()).ratio()
    )
