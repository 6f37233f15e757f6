"""The page of the reference about crash points: how things stand at each, and what becomes of them."""

from __future__ import annotations

from docs.markdown import code, page, table
from pipelined.crashpoints import VARIABLE, Point

__all__ = ["crash_points"]

_INTRO = f"""\
For tests. A crash point is a place between two steps at which a worker can be made to kill itself with
SIGKILL, exactly there and exactly once. It can do nothing that `kill -9` at a bad moment could not do.

`{VARIABLE}` names a folder. A file `WORKER:POINT` in it arms that point: the first process of that type
that comes by removes the file and dies; its successor finds no file and goes on. A number in the file
means the so-many-th time. A folder that cannot be read, or a file that names no point of that worker,
ends the daemon at its start, and a worker at any time, with exit code 78. What is armed is logged as a
warning when a worker starts. Without the variable nothing is looked at.

```sh
mkdir -p /tmp/points && touch /tmp/points/download:file.renamed
{VARIABLE}=/tmp/points bin/pipelined run --dev
```

Each line is tested for each of its workers by `tests/chaos/test_crash_points.py`: the worker dies there
with events under way, comes back, and the ledger balances. `make test ARGS="tests/chaos -k
upload-file.renamed"` runs one of them. A point that is not called, or a worker without its test, fails
`tests/unit/test_crashpoints.py`."""


def crash_points() -> str:
    """Every point, in the order of the work."""
    return page(
        "Crash points",
        "`pipelined/crashpoints.py`",
        _INTRO,
        table(
            ["point", "how things stand", "what becomes of them", "tests: `-k WORKER-POINT`, of"],
            ([code(each.label), each.stands, each.follows, ", ".join(each.workers)] for each in Point),
        ),
    )
