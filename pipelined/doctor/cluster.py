"""The Kafka cluster: its brokers, what they allow, the topics, the transactions, the groups."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from pipelined.config import Config
from pipelined.doctor.finding import Finding, failed, fine, warned
from pipelined.errors import AuthError, ConfigError, UnavailableError

__all__ = ["brokers", "groups", "topics", "transactions"]

_PATIENCE_S: Final = 5.0
_TRANSACTIONS_S: Final = 12.0
#: What a transaction over several partitions needs of the brokers (KIP-447), and static members.
_OLDEST: Final = (2, 5)


def brokers(config: Config) -> Iterator[Finding]:
    """Each broker: that it is reached where it says it is, its release, the login, what it allows."""
    from pipelined.kafka import limits
    from pipelined.kafka.brokers import addresses, release

    kafka = config.kafka
    try:
        found = addresses(config, timeout=_PATIENCE_S)
    except AuthError as error:
        yield failed(str(error), "check kafka.sasl_username, kafka.sasl_password and kafka.sasl_mechanism")
        return
    except ConfigError as error:
        yield failed(str(error), "set kafka.ca_file to the certificates that the brokers' are signed by")
        return
    except UnavailableError as error:
        fix = "start the brokers, or set kafka.bootstrap and kafka.security_protocol to what they listen with"
        yield failed(str(error), fix)
        return
    login = f", logged in as {kafka.sasl_username}" if kafka.security_protocol.startswith("SASL") else ""
    for address in found:
        try:
            told = release(kafka, address, timeout=_PATIENCE_S)
        except UnavailableError as error:
            yield failed(
                f"{error}; that is where a broker says it is", "see the advertised.listeners of the broker"
            )
            continue
        version = ".".join(map(str, told))
        if told < _OLDEST:
            yield failed(f"{address}: Kafka {version}", "upgrade it: 2.5 is the oldest that will do")
        else:
            yield fine(f"{address}: Kafka {version}, {kafka.security_protocol}{login}")
    try:
        limits.check(config, timeout=_PATIENCE_S)
    except ConfigError as error:
        for problem in error.problems:
            yield failed(problem, "change the key, or the setting of the brokers")


def topics(config: Config) -> Iterator[Finding]:
    """Each topic: that it is there, with the partitions and settings that are declared."""
    from pipelined.kafka import topics as kafka_topics

    changes = kafka_topics.plan(config, timeout=_PATIENCE_S)
    for change in changes:
        fix = "set its section under `topics` to what it is" if change.refused else _APPLY
        yield failed(str(change), fix)
    if not changes:
        declared = kafka_topics.declared(config)
        count = sum(topic.partitions for topic in declared)
        yield fine(f"{len(declared)} topics with {count} partitions are as declared")


_APPLY: Final = "run `pipelinectl topics apply`"


def transactions(config: Config) -> Iterator[Finding]:
    """That a session of transactions can be begun."""
    from pipelined.kafka.brokers import may_transact

    try:
        may_transact(config, timeout=_TRANSACTIONS_S)
    except AuthError as error:
        yield failed(
            str(error), f"allow the user Write and Describe on transactional ids of {config.domain}.*"
        )
    else:
        yield fine("a session of transactions was begun")


def groups(config: Config) -> Iterator[Finding]:
    """Each group of a worker type that runs here: who is in it, and how far it is behind."""
    from pipelined.kafka.groups import members
    from pipelined.kafka.lag import INPUTS, Lags

    types = [each for each in INPUTS if config.worker(each).processes]
    present = [each for each in members(config, types) if each.turn is None]
    lags = Lags(config, types).ask(_PATIENCE_S)
    for worker_type in types:
        of_type = [each for each in present if each.worker_type == worker_type]
        hosts = sorted({each.host for each in of_type if each.host})
        lag = f"{lags[worker_type]:,} records behind"
        strangers = [each.address for each in of_type if not each.host]
        if strangers:
            fix = f"stop the client at {strangers[0]}, or choose another `domain`"
            yield warned(f"{worker_type}: a client that is none of ours is in the group", fix)
        elif of_type:
            yield fine(f"{worker_type}: {len(of_type)} on {', '.join(hosts)}, {lag}")
        elif lags[worker_type]:
            yield warned(f"{worker_type}: nobody works, {lag}", "start the daemon: `pipelinectl start`")
        else:
            yield fine(f"{worker_type}: nobody works, and nothing waits")
