"""The sections of the sources: the Eventhouse, the Event Hub, their logins, and when they pause."""

from __future__ import annotations

from dataclasses import dataclass

from pipelined.config.auth import Auth
from pipelined.config.keys import SECRET_HELP, key, section

__all__ = ["Columns", "Eventhouse", "Eventhub", "Sources"]


@dataclass(frozen=True, slots=True)
class Sources:
    """What holds for every source."""

    pause_lag: int = key(
        200000,
        "Reading pauses while the event-ingester is so many records behind …",
        unit="records",
        low=1,
    )
    resume_lag: int = key(100000, "… and goes on when it is no more than so many.", unit="records", low=0)
    pause_stages: tuple[str, ...] = key(
        ("event-ingester",), "The worker types whose lag counts; the largest of them decides."
    )
    lag_seconds: float = key(2.0, "How often the lag is asked for.", unit="seconds", low=0.1, high=600)


@dataclass(frozen=True, slots=True)
class Columns:
    """What the columns of the source event are called in the table."""

    type: str = key("type", "The event type.")
    version: str = key("version", "The payload's version.")
    utc_date_time: str = key("utcDateTime", "The event's time.")
    trace_id: str = key("traceId", "The unique id of the event.")
    data: str = key("data", "The payload.")


@dataclass(frozen=True, slots=True)
class Eventhouse:
    """The Eventhouse (KQL database) that the eventhouse-poller reads."""

    url: str = key("", "Its query address: https://….kusto.fabric.microsoft.com.")
    hosts: tuple[str, ...] = key(
        (), "Hosts, or domains of hosts, that a token may be sent to beside those of Microsoft's clouds."
    )
    database: str = key("", "The database.")
    table: str = key("Events", "The table of the events.")
    filter: str = key(
        "",
        "An extra condition on its rows, in KQL, such as: type startswith 'verisk.claims'. Empty: all rows.",
    )
    start: str = key(
        "beginning",
        "Where the first poll begins: beginning, now, or a time such as 2026-01-05T00:00:00Z. No meaning "
        "once there is a position.",
    )
    page_rows: int = key(5000, "Most rows of one query.", unit="rows", low=1, high=50000)
    poll_seconds: float = key(
        5.0, "Pause between polls while there is nothing new.", unit="seconds", low=0.1, high=3600
    )
    timeout_s: float = key(60.0, "Time for one query.", unit="seconds", low=1, high=3600)
    overlap_seconds: float = key(
        900.0,
        "Where the database has no cursors: how far the poll looks back for rows that came late.",
        unit="seconds",
        low=0,
        high=86400,
    )
    columns: Columns = section(Columns, "The columns of the table.")
    auth: Auth = section(Auth, "How to log in.")


@dataclass(frozen=True, slots=True)
class Eventhub:
    """The Event Hub that the eventhub-reader reads, by the Kafka protocol."""

    bootstrap: str = key("", "Its address: NAMESPACE.servicebus.windows.net:9093.")
    topic: str = key("", "The Event Hub's name.")
    group: str = key("$Default", "The consumer group whose position is kept there for lag tools.")
    connection_string: str = key(
        "", "The connection string; without one the login below is used. " + SECRET_HELP, secret=True
    )
    security_protocol: str = key(
        "SASL_SSL", "How to connect; PLAINTEXT for a local stack only.", choices=("SASL_SSL", "PLAINTEXT")
    )
    ca_file: str = key("", "File of the certificates to trust (PEM); empty: the system's.")
    start: str = key(
        "beginning",
        "Where the first read begins: beginning or now. Without meaning once there is a position.",
        choices=("beginning", "now"),
    )
    page_records: int = key(5000, "Most records of one transaction.", unit="records", low=1, high=50000)
    stall_seconds: float = key(
        60.0,
        "With records waiting and none coming for so long, the connection is made anew.",
        unit="seconds",
        low=1,
        high=3600,
    )
    auth: Auth = section(Auth, "How to log in without a connection string.")
