"""Files are on the disk before anything committed speaks of them: the system calls of real workers, in order.

One event with one attachment goes through workers that strace watches. Kafka's requests are told by the
number of their kind in their first bytes, so "before the commit request goes out" is meant literally.
"""

from __future__ import annotations

import re
import shutil
import signal
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import realparts
from flow import Flow, event, trace_ids
from pipelined.local.fileserver import file_path
from waiting import until

pytestmark = pytest.mark.timeout(150)

WATCHED = ("download", "upload", "event-writer", "result-processor")
CALLS = "fsync,fdatasync,syncfs,rename,renameat,renameat2,linkat,sendmsg,sendto"
#: What a broker calls the requests that make something count.
PRODUCE, OFFSET_COMMIT, END_TXN = 0, 8, 26

_LINE = re.compile(r"^(\d+) +(.*)$")
_NAME = re.compile(r'"((?:[^"\\]|\\.)*)"')
_REQUEST = re.compile(r'iov_base="\\x00((?:\\x[0-9a-f]{2}){5})')


class Step(NamedTuple):
    """``sync`` of a path (of a whole file system: "*"), ``name`` given to a file, ``request`` to a broker."""

    kind: str
    what: str | int
    source: str = ""  # the name that the file had before


@pytest.fixture
def strace() -> str:
    found = shutil.which("strace")
    realparts.require("strace", None if found else "it is not installed")
    assert found is not None
    return found


def steps(lines: Iterable[str]) -> Iterator[Step]:
    """The steps in their order: syncs and names when their calls have returned, requests when they begin."""
    begun: dict[str, str] = {}
    for line in lines:
        found = _LINE.match(line)
        assert found, line
        thread, text = found.groups()
        if text.startswith(("sendmsg(", "sendto(")):
            if request := _REQUEST.search(text):
                kind = bytes.fromhex(request[1].replace("\\x", ""))[3:5]
                yield Step("request", int.from_bytes(kind, "big"))
        elif text.endswith("<unfinished ...>"):
            begun[thread] = text.removesuffix("<unfinished ...>")
        elif resumed := re.match(r"<\.\.\. \w+ resumed>(.*)", text):
            if thread in begun:
                yield from _step(begun.pop(thread) + resumed[1])
        else:
            yield from _step(text)


def _step(call: str) -> Iterator[Step]:
    if not call.rstrip().endswith("= 0"):
        return
    if call.startswith(("fsync(", "fdatasync(")):
        yield Step("sync", call[call.index("<") + 1 : call.rindex(">")])
    elif call.startswith("syncfs("):
        yield Step("sync", "*")
    elif call.startswith(("rename", "linkat(")):
        names = _NAME.findall(call)
        yield Step("name", names[-1], names[0])


class Trace:
    """The steps of one process so far."""

    def __init__(self, output: Path) -> None:
        whole = output.read_text(errors="replace").rpartition("\n")[0]  # the last line may be under way
        self.steps = list(steps(whole.splitlines()))

    def first(self, kind: str, what: str | int, since: int = 0) -> int:
        """Where this step is; fails the test when it is nowhere."""
        for place, step in enumerate(self.steps[since:], since):
            if step.kind == kind and step.what in {what, "*"}:
                return place
        raise AssertionError(f"no {kind} of {what} behind step {since} of:\n{self}")

    def requests(self, kind: int) -> list[int]:
        return [place for place, step in enumerate(self.steps) if step == Step("request", kind)]

    def __str__(self) -> str:
        return "\n".join(f"{place:4} {step.kind} {step.what}" for place, step in enumerate(self.steps))


def watch(flow: Flow, strace: str, line: bytes) -> dict[str, Trace]:
    """The traces of the workers while this event goes through."""
    outputs = {name: flow.folder / f"{name}.strace" for name in WATCHED}
    watching = []
    for name, worker in flow.workers().items():
        if name in WATCHED:
            command = [strace, "-f", "-y", "-x", "-s", "32", "-e", f"trace={CALLS}", "-o", str(outputs[name])]
            watching.append(flow.popen([*command, "-p", str(worker["pid"])], flow.folder / "strace.log"))
            until(lambda pid=worker["pid"]: _is_traced(pid), f"strace is attached to {name}")
    flow.load([line])
    flow.settle()
    for name in ("event-writer", "result-processor"):  # what they tell the broker comes last
        until(lambda output=outputs[name]: Trace(output).requests(OFFSET_COMMIT), f"{name} tells its offsets")
    for each in watching:
        each.send_signal(signal.SIGINT)
        each.wait(20)
    return {name: Trace(output) for name, output in outputs.items()}


def _is_traced(pid: int) -> bool:
    tasks = Path(f"/proc/{pid}/task").glob("*/status")
    return all("TracerPid:\t0" not in task.read_text() for task in tasks)


def test_nothing_is_committed_before_the_files_it_speaks_of_are_durable(flow: Flow, strace: str) -> None:
    flow.configure({"tables.flush_seconds": 0.2})
    flow.start()
    # Everything that is made once, tables and folders and connections, is there already.
    flow.load(
        event(trace, [flow.files_url + file_path("ok", 3000, 1, "GENERIC.pdf")]) for trace in trace_ids(1)
    )
    flow.settle()
    before = set((flow.folder / "tables").rglob("*.*"))
    [trace] = trace_ids(1)
    traces = watch(flow, strace, event(trace, [flow.files_url + file_path("ok", 3000, 2, "GENERIC.pdf")]))

    [stored] = [path for path in (flow.folder / "files").rglob("*.*") if trace in str(path)]
    cached = next(str(step.what) for step in traces["download"].steps if step.kind == "name")
    assert cached.startswith(f"{flow.folder}/cache/{trace}/")
    for name, target, root in (
        ("download", Path(cached), flow.folder / "cache"),
        ("upload", stored, flow.folder / "files"),
    ):
        found = traces[name]
        named = found.first("name", str(target))
        assert found.first("sync", found.steps[named].source) < named, f"the content, first:\n{found}"
        folders = [folder for folder in target.parents if folder.is_relative_to(root)]
        durable = max(found.first("sync", str(folder), named) for folder in folders)
        assert min(found.requests(PRODUCE)) > durable, f"{name} spoke of {target} too early:\n{found}"
        assert min(found.requests(END_TXN)) > durable

    made = set((flow.folder / "tables").rglob("*.*")) - before
    for name, tables in (
        ("event-writer", {"events"}),
        ("result-processor", {"attachments", "attachments_failed"}),
    ):
        found = traces[name]
        mine = [path for path in made if _table(flow, path) in tables]
        assert {_table(flow, path) for path in mine} == tables
        assert any(path.suffix == ".parquet" for path in mine)
        durable = max(
            found.first("sync", str(path), found.first("name", str(file)))
            for file in mine
            for path in (file, file.parent)
        )
        assert min(found.requests(OFFSET_COMMIT)) > durable, f"the broker was told too early:\n{found}"


def _table(flow: Flow, path: Path) -> str:
    return path.relative_to(flow.folder / "tables").parts[0].removeprefix(f"{flow.domain}_")
