"""What is imported before the first fork, so that the workers share it and restart in milliseconds."""

from __future__ import annotations

import gc
import importlib
import os
from collections.abc import Sequence
from pathlib import Path

from pipelined.errors import PipelinedError

__all__ = ["preload", "threads"]

#: pyarrow and deltalake each bring a jemalloc that starts a thread when it is loaded. A process with
#: threads must not fork: a lock that one of them holds stays held in the child for ever.
_NO_THREADS = {
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
    "_RJEM_MALLOC_CONF": "background_thread:false",
}


def preload(modules: Sequence[str]) -> None:
    """Import ``modules`` (and never use them here), then freeze what they made out of the collector's sight.

    Call it before anything else imports them. Raises PipelinedError when the process has more than one
    thread afterwards, because forking it would not be safe; ImportError where a module is missing.
    """
    for name, value in _NO_THREADS.items():
        os.environ[name] = ",".join(filter(None, (os.environ.get(name), value)))
    for module in modules:
        importlib.import_module(module)
    running = threads()
    if len(running) > 1:
        raise PipelinedError(
            f"the parent has {len(running)} threads ({', '.join(running)}) after loading its modules, and "
            f"must have one to fork safely; a library starts them on import, or was imported before preload()"
        )
    # A collection in a child would write to every object's header, and so copy every page it shares.
    gc.collect()
    gc.freeze()


def threads() -> list[str]:
    """The names of this process's threads, the native ones included."""
    return [(task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]
