"""The answers of administrative calls, which come by futures: in time, or as one kind of error."""

from __future__ import annotations

from concurrent.futures import Future
from typing import TypeVar

from confluent_kafka import KafkaError, KafkaException

__all__ = ["answered"]

T = TypeVar("T")


def answered(future: Future[T], timeout: float) -> T:
    """What a call came to. Raises KafkaException, also where the client itself never says anything."""
    try:
        return future.result(timeout)
    except TimeoutError as error:
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT, "the client gave no answer")) from error
