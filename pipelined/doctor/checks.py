"""Every check by its name, in the order in which the findings are told."""

from __future__ import annotations

from pipelined.doctor import cluster, machine, places, services
from pipelined.doctor.examination import Check

__all__ = ["CHECKS"]

CHECKS: tuple[Check, ...] = (
    Check(
        "brokers",
        "each broker: reached where it says it is, its release, the login, the time-outs it allows",
        cluster.brokers,
        "check kafka.bootstrap, and that the brokers are up",
        limit_s=40.0,
    ),
    Check(
        "topics",
        "each topic: there, with the partitions and settings that are declared",
        cluster.topics,
        "see the findings of brokers",
        needs=("brokers",),
    ),
    Check(
        "transactions",
        "a session of transactions can be begun",
        cluster.transactions,
        "see that the brokers have as many in-sync replicas as transaction.state.log.min.isr asks for",
        limit_s=20.0,
        needs=("brokers",),
    ),
    Check(
        "groups",
        "each consumer group: its members, and how far it is behind",
        cluster.groups,
        "see the findings of brokers and topics",
        needs=("brokers",),
    ),
    Check(
        "folders",
        "state, cache and control socket: writable, and with free space",
        places.folders,
        "see that the disk answers",
    ),
    Check(
        "store",
        "the store for files: a small file is written, read and deleted",
        places.store,
        "check upload.url and upload.auth, and the rights there",
        limit_s=30.0,
    ),
    Check(
        "tables",
        "each table: it opens, its columns fit, its place can be written to",
        places.tables,
        "check tables.url and tables.auth, and the rights there",
        limit_s=60.0,
    ),
    Check(
        "logins",
        "a token of each login by Entra ID",
        services.logins,
        "see that the login service is reached, and docs/how-to/login.md",
        limit_s=30.0,
    ),
    Check(
        "eventhouse",
        "the Eventhouse: login, table, columns, filter, cursors, position",
        services.eventhouse,
        "check eventhouse.url, eventhouse.database and eventhouse.auth, and that it is reached from here",
        limit_s=30.0,
    ),
    Check(
        "eventhub",
        "the Event Hub: login, partitions",
        services.eventhub,
        "check eventhub.bootstrap, eventhub.topic and its login, and that port 9093 is open",
        limit_s=30.0,
    ),
    Check(
        "clock",
        "the clock, against that of the services",
        machine.clock,
        "see that the services are reached",
        limit_s=30.0,
    ),
    Check(
        "limits",
        "open files and memory, against what is configured",
        machine.limits,
        "report it",
    ),
)
