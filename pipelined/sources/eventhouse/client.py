"""Queries to an Eventhouse: Microsoft's client, with what a poller must add to it.

The client retries nothing, asks for its token anew with each request, hands out rows before it looks whether
they are all, and waits for its cluster's metadata without end. Here a query has its time, its rows are
complete or there are none, and nothing but the query is ever asked.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from azure.kusto.data import ClientRequestProperties, KustoClient, KustoConnectionStringBuilder
from requests import PreparedRequest, Response
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection

from pipelined import __version__
from pipelined.auth import TokenProvider
from pipelined.config.sources import Eventhouse
from pipelined.config.trust import is_loopback
from pipelined.errors import AuthError, ConfigError, PipelinedError, RecordError, TransientError
from pipelined.sources.eventhouse.errors import LostError, classify, partial_failure

__all__ = ["Answer", "Client"]

_CONNECT_S = 10.0
#: The service ends a query at its timeout; what comes later than this is not coming.
_GRACE_S = 5.0
_APPLICATION = f"pipelined/{__version__}"
#: The last frame, by its name as only JSON itself can have it, and what it says of an answer that failed.
_LAST_FRAME: Final = b'"DataSetCompletion"'
_FAILED: Final = re.compile(rb'"(?:HasErrors|Cancelled)"\s*:\s*true')


class Answer(NamedTuple):
    """The rows of an answer, their values as they came, and the types of its columns."""

    rows: list[list[Any]]
    types: list[str]


class _Adapter(HTTPAdapter):
    """Its own times for connecting and reading; the client has one for both, and half a minute more."""

    def __init__(self, seconds: float) -> None:
        self._times = (min(_CONNECT_S, seconds), seconds + _GRACE_S)
        #: The last frame of the last answer, which the client never looks at.
        self.end = b""
        super().__init__(pool_maxsize=1)

    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **kwargs: Any) -> None:
        options = [*HTTPConnection.default_socket_options, *KustoClient.compose_socket_options()]
        super().init_poolmanager(connections, maxsize, block, socket_options=options, **kwargs)

    def send(self, request: PreparedRequest, *args: Any, **kwargs: Any) -> Response:
        kwargs["timeout"] = self._times
        response = super().send(request, *args, **kwargs)
        response.encoding = "utf-8"  # which the service need not say; else megabytes are guessed at
        at = response.content.rfind(_LAST_FRAME)
        self.end = response.content[at:] if at >= 0 else b""
        return response


class Client:
    """One at a time. ``seconds`` are those of the requests since it was last emptied, ``throttled`` counts
    those refused for being too many; whoever reads them sets them back.
    """

    def __init__(self, config: Eventhouse, login: TokenProvider) -> None:
        self._config = config
        self._login = login
        where = urlsplit(config.url)
        self.host = where.netloc
        self._loopback = is_loopback(where.hostname or "")
        if not self._loopback and (config.auth.method == "none" or where.scheme != "https"):
            msg = f"eventhouse.url: {config.url} is not this machine: https and eventhouse.auth are needed"
            raise ConfigError(msg)
        self.seconds: list[float] = []
        self.throttled = 0
        self._token = ""
        self._adapter = _Adapter(config.timeout_s)
        self._client: KustoClient | None = None

    @property
    def token_expires(self) -> float | None:
        """When the present login ends."""
        return self._login.expires_at

    def query(self, text: str, parameters: Mapping[str, str], most_bytes: int | None = None) -> Answer:
        """The whole answer.

        With ``most_bytes`` a larger answer is a LimitError. A query that found its connection lost is asked
        once again at once, and one whose token is refused once again with a fresh one.
        """
        properties = self._asked(parameters, most_bytes)
        try:
            return self._ask(text, properties)
        except LostError:
            self.close()
        except AuthError as error:
            if error.http_status != 401 or not self._token:
                raise
            self._login.refresh(self._token)
        return self._ask(text, properties)

    def _asked(self, parameters: Mapping[str, str], most_bytes: int | None) -> ClientRequestProperties:
        properties = ClientRequestProperties()
        properties.application = _APPLICATION
        properties.set_option("servertimeout", timedelta(seconds=self._config.timeout_s))
        properties.set_option("request_readonly", True)
        if most_bytes is not None:
            properties.set_option("truncationmaxsize", most_bytes)
        for name, value in parameters.items():
            properties.set_parameter(name, value)
        return properties

    def _ask(self, text: str, properties: ClientRequestProperties) -> Answer:
        self._token = self._login.token()
        client = self._connected()
        started = time.monotonic()
        try:
            answer = client.execute_query(self._config.database, text, properties)
            if answer.errors_count:
                raise partial_failure(answer.get_exceptions(), self.host)
            if not self._adapter.end:
                raise TransientError("odd_answer", f"the answer of {self.host} has no end")
            if _FAILED.search(self._adapter.end):
                raise partial_failure([self._adapter.end.decode("utf-8", "replace")], self.host)
            (table,) = answer.primary_results
            found = Answer(table.raw_rows, [column.column_type for column in table.columns])
        except PipelinedError:
            raise
        except Exception as error:
            judged = classify(error, self.host)
            if isinstance(judged, RecordError) and judged.code == "throttled":
                self.throttled += 1
            raise judged from error
        finally:
            self.seconds.append(time.monotonic() - started)
        return found

    def _connected(self) -> KustoClient:
        if self._client is None:
            url = self._config.url
            # Neither of the two ever asks for the metadata of the cluster, which has no timeout.
            if self._config.auth.method == "none":
                builder = KustoConnectionStringBuilder.with_no_authentication(url)
            else:
                builder = KustoConnectionStringBuilder.with_token_provider(url, lambda: self._token)
            self._client = KustoClient(builder)
            session = self._client._session
            session.trust_env = not self._loopback  # no proxy leads to this machine
            for scheme in ("http://", "https://"):
                session.mount(scheme, self._adapter)
        return self._client

    def close(self) -> None:
        """Close the connection; the next query makes another."""
        if self._client is not None:
            self._client.close()
            self._client = None
