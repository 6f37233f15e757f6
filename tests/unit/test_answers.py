from __future__ import annotations

from concurrent.futures import Future

import pytest
from confluent_kafka import KafkaError, KafkaException

from pipelined.kafka.answers import answered


def test_an_answer_is_handed_on_and_so_is_the_brokers_error() -> None:
    told: Future[int] = Future()
    told.set_result(7)
    assert answered(told, 1) == 7
    refused: Future[int] = Future()
    refused.set_exception(KafkaException(KafkaError(KafkaError.TOPIC_ALREADY_EXISTS)))
    with pytest.raises(KafkaException, match="TOPIC_ALREADY_EXISTS"):
        answered(refused, 1)


def test_a_client_that_never_answers_is_an_error_of_kafka_too() -> None:
    with pytest.raises(KafkaException, match="gave no answer") as raised:
        answered(Future(), 0.01)
    assert raised.value.args[0].code() == KafkaError._TIMED_OUT
