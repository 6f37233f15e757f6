"""What must hold of the sources that are enabled, and of the back-pressure on them."""

from __future__ import annotations

from collections.abc import Iterator

from pipelined.config.problems import Problem
from pipelined.config.tree import SOURCE_TYPES, WITHOUT_KAFKA, WORKER_TYPES, Config

__all__ = ["sources"]

#: What each source cannot do without.
_NEEDED = {
    "eventhouse-poller": ("eventhouse", ("url", "database", "table")),
    "eventhub-reader": ("eventhub", ("bootstrap", "topic")),
}


def sources(config: Config) -> Iterator[Problem]:
    """An enabled source says where it reads; what makes it pause exists, and lets it go on."""
    for worker_type, (section, names) in _NEEDED.items():
        if not config.worker(worker_type).processes:
            continue
        switch = f"workers.{worker_type.replace('-', '_')}.processes"
        for name in names:
            if not getattr(getattr(config, section), name):
                path = f"{section}.{name}"
                yield Problem((path, switch), f"{path} is needed where {switch} is 1")
    settings = config.sources
    if settings.resume_lag > settings.pause_lag:
        yield Problem(
            ("sources.resume_lag", "sources.pause_lag"),
            f"sources.resume_lag: {settings.resume_lag} is more than sources.pause_lag, {settings.pause_lag}",
        )
    lagging = [name for name in WORKER_TYPES if name not in (*SOURCE_TYPES, *WITHOUT_KAFKA)]
    for name in settings.pause_stages:
        if name not in lagging:
            yield Problem(
                ("sources.pause_stages",),
                f'sources.pause_stages: "{name}" is not allowed: expected some of {", ".join(lagging)}',
            )
