"""Log events of the parts that `pipelined run --dev` and the tests start on this machine."""

from __future__ import annotations

from pipelined.logs.events.event import Event

__all__ = ["EVENTS"]

EVENTS = (
    Event(
        "dev.java_cache",
        "Java wrote no AOT cache; the local Kafka starts slower without it",
        "Java ended with the code that is said; `log` has its last lines.",
        "Nothing; or see that there is room in the folder.",
    ),
    Event(
        "dev.port_taken",
        "A port was taken before the local Kafka had it; trying others",
        "Another program was faster.",
    ),
    Event("dev.request", "METHOD PATH STATUS, of the local Eventhouse", "One HTTP request to it."),
)
