"""Who is in our consumer groups now: hosts, workers, their partitions and how far behind they are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, MemberDescription

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

    Work that one host does at a time has a second group, in which the host is elected. A member of that
    has no partitions and no lag, and ``turn`` tells whether it is elected; elsewhere that is None.
    """

    group: str
    worker_type: str
    instance: str
    host: str
    index: int
    address: str
    partitions: tuple[tuple[str, int], ...]
    lag: int | None
    turn: bool | None = None


def members(
    config: Config, worker_types: Iterable[str] = WORKER_TYPES, *, lags: bool = False, timeout: float = 10.0
) -> list[GroupMember]:
    """The members of these worker types' groups, by type, group, host and index; with their ``lags``, or not.

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
        groups = {
            group: worker
            for worker in types
            for group in (names.group(worker), names.election(worker))
            if group in there
        }
        answers = admin.describe_consumer_groups(list(groups), request_timeout=timeout) if groups else {}
        for group, answer in answers.items():
            worker_type = groups[group]
            of_group = [
                _member(config, group, worker_type, each) for each in answered(answer, timeout + 5).members
            ]
            if group == names.election(worker_type):
                # Who has the first partition of the election is elected; it reads none of them.
                found += [replace(m, partitions=(), turn=_is_elected(m)) for m in of_group]
            elif lags:
                behind = _lags(config, group, of_group, timeout)
                found += [replace(m, lag=sum(behind[place] for place in m.partitions)) for m in of_group]
            else:
                found += of_group
    except KafkaException as error:
        msg = (
            f"Kafka at {config.kafka.bootstrap} does not tell its groups: {error.args[0].str()}; "
            "check kafka.bootstrap and that the brokers are up"
        )
        raise UnavailableError(msg) from error
    return sorted(found, key=lambda m: (types.index(m.worker_type), m.group, m.host, m.index))


def _member(config: Config, group: str, worker_type: str, member: MemberDescription) -> GroupMember:
    instance = member.group_instance_id or ""
    host, index = _place(config.domain, worker_type, instance)
    partitions = tuple(sorted((p.topic, p.partition) for p in member.assignment.topic_partitions))
    return GroupMember(group, worker_type, instance, host, index, member.host, partitions, None)


def _is_elected(member: GroupMember) -> bool:
    return any(number == 0 for _, number in member.partitions)


def _place(domain: str, worker_type: str, instance: str) -> tuple[str, int]:
    """Host and index in an instance id, as ``Names.instance`` makes it."""
    start, rest = f"{domain}.", instance.rpartition(f".{worker_type}.")
    if instance.startswith(start) and rest[2].isdigit():
        return rest[0].removeprefix(start), int(rest[2])
    return "", -1


def _lags(
    config: Config, group: str, of_group: Sequence[GroupMember], timeout: float
) -> dict[tuple[str, int], int]:
    places = [place for member in of_group for place in member.partitions]
    if not places:
        return {}
    with closing(onlooker(config, group)) as consumer:
        return behind(consumer, [TopicPartition(*place) for place in places], timeout)
