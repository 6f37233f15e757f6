"""Who is in our consumer groups now: hosts, workers, their partitions and how far behind they are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass

from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from pipelined.config import Config
from pipelined.config.tree import WITHOUT_KAFKA, WORKER_TYPES
from pipelined.errors import UnavailableError
from pipelined.kafka.answers import answered
from pipelined.kafka.lag import behind, onlooker
from pipelined.kafka.settings import Names, admin_settings

__all__ = ["GroupMember", "members"]


@dataclass(frozen=True, slots=True)
class GroupMember:
    """One member of a group; one that has died is there until its session times out.

    ``host`` is the ``kafka.host`` of its daemon and ``index`` the number of its process, "" and -1 for a
    client that is none of ours; ``address`` is where its connection comes from. ``lag``: records between
    what is committed of its partitions and their ends, transaction markers included; None where that was
    not asked for.
    """

    group: str
    worker_type: str
    instance: str
    host: str
    index: int
    address: str
    partitions: tuple[tuple[str, int], ...]
    lag: int | None


def members(
    config: Config, worker_types: Iterable[str] = WORKER_TYPES, *, lags: bool = False, timeout: float = 10.0
) -> list[GroupMember]:
    """The members of the groups of these worker types, by type, host and index; with their ``lags``, or not.

    One that is just joining has no partitions yet. Raises UnavailableError where the cluster does not
    answer within ``timeout`` seconds.
    """
    names = Names(config)
    types = [worker for worker in worker_types if worker not in WITHOUT_KAFKA]
    admin = AdminClient(admin_settings(config))
    found: list[GroupMember] = []
    try:
        # Only those that are: on a new cluster there is no coordinator yet that could tell of the others.
        listed = answered(admin.list_consumer_groups(request_timeout=timeout), timeout + 5).valid
        there = {group.group_id for group in listed}
        groups = {names.group(worker): worker for worker in types if names.group(worker) in there}
        answers = admin.describe_consumer_groups(list(groups), request_timeout=timeout) if groups else {}
        for group, answer in answers.items():
            worker_type = groups[group]
            described = [(m, m.assignment.topic_partitions) for m in answered(answer, timeout + 5).members]
            places_of = [place for _, places in described for place in places]
            behind = _lags(config, group, places_of, timeout) if lags else None
            for member, places in described:
                partitions = tuple(sorted((place.topic, place.partition) for place in places))
                instance = member.group_instance_id or ""
                host, index = _place(config.domain, worker_type, instance)
                lag = None if behind is None else sum(behind[partition] for partition in partitions)
                found.append(
                    GroupMember(group, worker_type, instance, host, index, member.host, partitions, lag)
                )
    except KafkaException as error:
        msg = (
            f"Kafka at {config.kafka.bootstrap} does not tell its groups: {error.args[0].str()}; "
            "check kafka.bootstrap and that the brokers are up"
        )
        raise UnavailableError(msg) from error
    return sorted(found, key=lambda member: (types.index(member.worker_type), member.host, member.index))


def _place(domain: str, worker_type: str, instance: str) -> tuple[str, int]:
    """Host and index in an instance id, as ``Names.instance`` makes it."""
    start, rest = f"{domain}.", instance.rpartition(f".{worker_type}.")
    if instance.startswith(start) and rest[2].isdigit():
        return rest[0].removeprefix(start), int(rest[2])
    return "", -1


def _lags(
    config: Config, group: str, places: Sequence[TopicPartition], timeout: float
) -> dict[tuple[str, int], int]:
    if not places:
        return {}
    with closing(onlooker(config, group)) as consumer:
        return behind(consumer, [TopicPartition(p.topic, p.partition) for p in places], timeout)
