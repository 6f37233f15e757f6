"""What the brokers allow, against the configuration."""

from __future__ import annotations

import re

import pytest

from pipelined.config.cluster import Kafka
from pipelined.config.tree import Config
from pipelined.kafka.limits import problems

BROKER = {
    "group.min.session.timeout.ms": "6000",
    "group.max.session.timeout.ms": "1800000",
    "transaction.max.timeout.ms": "900000",
}


def test_the_defaults_of_brokers_allow_our_defaults() -> None:
    assert list(problems(Config(), BROKER)) == []


def test_brokers_that_do_not_tell_are_believed_to_allow_it() -> None:
    assert list(problems(Config(kafka=Kafka(session_timeout_s=1)), {})) == []
    assert list(problems(Config(), dict.fromkeys(BROKER))) == []


@pytest.mark.parametrize(
    ("kafka", "words"),
    [
        (Kafka(session_timeout_s=5), r"kafka.session_timeout_s: 5 .*group.min.*ms is 6000: set it to 6,"),
        (Kafka(session_timeout_s=1801), "group.max.session.timeout.ms is 1800000: set it to 1800"),
        (Kafka(transaction_timeout_s=901), "transaction.max.timeout.ms is 900000: set it to 900"),
    ],
)
def test_what_they_refuse_is_told_with_the_key_and_their_limit(kafka: Kafka, words: str) -> None:
    (problem,) = problems(Config(kafka=kafka), BROKER)
    assert re.search(words, problem)
