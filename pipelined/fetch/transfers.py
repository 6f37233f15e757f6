"""Downloads on libcurl's multi interface: many at once, in one thread, each to a file of its own.

What it promises:

* Every address is judged on the very connection that is used, every redirect like the first URL.
* A body counts as complete only where its end is proven, and never grows beyond the largest file.
* A transfer ends: connecting, standing still and crawling have limits, and over its whole life it must
  keep up ``download.low_speed_bytes`` a second once ``download.timeout_s`` have passed.
* No proxy, cookie, decoding or protocol but HTTP comes in through the environment or the other side.
"""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections.abc import Hashable
from typing import Any, NamedTuple
from urllib.parse import urljoin

import pycurl

from pipelined.config.tree import Config
from pipelined.errors import PermanentError, RecordError, TransientError
from pipelined.fetch.addresses import networks
from pipelined.fetch.answers import REDIRECTS, Answer, judge_code, judge_status, read_answer
from pipelined.fetch.policy import UrlPolicy
from pipelined.fetch.slot import Slot

__all__ = ["Fetched", "Transfers"]

#: How often the whole-transfer limit is looked at, in seconds.
_EXPIRY_STEP = 0.25


class Fetched(NamedTuple):
    """What became of a transfer. Without ``error`` it is complete.

    A small one is in ``body``, and no file was made; of a larger one ``file`` is the open file at
    ``path``: close it.
    """

    key: Hashable
    path: str
    error: RecordError | None = None
    file: int = -1
    body: bytes = b""
    size: int = 0
    sha256: str = ""
    http_status: int = 0
    content_type: str | None = None
    head: bytes = b""

    def discard(self) -> None:
        """Close and remove the file of a transfer that is not wanted after all."""
        if self.file >= 0:
            os.close(self.file)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path)  # noqa: PTH108 - paths are text on the way of every file


class Transfers:
    """``most`` transfers at once; else ``download.concurrency``. Belongs to one thread, but for ``wake``."""

    def __init__(self, config: Config, policy: UrlPolicy | None = None, most: int | None = None) -> None:
        self._config = config
        self._policy = policy or UrlPolicy(config.urls)
        self._active: dict[Hashable, Slot] = {}
        self._finished: list[Fetched] = []
        self._timer: float | None = None
        self._expiry = 0.0
        self._epoll = select.epoll()
        self._waker = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._waker, select.EPOLLIN)
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_SOCKETFUNCTION, self._watch)
        self._multi.setopt(pycurl.M_TIMERFUNCTION, self._set_timer)
        most = most or config.download.concurrency
        self._multi.setopt(pycurl.M_MAXCONNECTS, most)
        allowed = networks(config.urls.allowed_networks)
        slots = [Slot(config, allowed) for _ in range(most)]
        self._slots = {slot.curl: slot for slot in slots}
        self._idle = slots

    @property
    def free(self) -> int:
        """How many more transfers may be started now."""
        return len(self._idle)

    @property
    def running(self) -> int:
        """How many transfers are under way."""
        return len(self._active)

    def start(self, key: Hashable, url: str, path: str) -> None:
        """Begin to fetch ``url`` into a new file at ``path``; one of ``free`` is used.

        The URL was checked by the caller; ``key`` must not be under way already.
        """
        slot = self._idle[-1]
        slot.begin(key, path)
        slot.hop(url)
        self._multi.add_handle(slot.curl)
        self._active[key] = self._idle.pop()

    def cancel(self, key: Hashable) -> None:
        """End a transfer without a result, and remove its file."""
        slot = self._active.pop(key, None)
        if slot is not None:
            self._multi.remove_handle(slot.curl)
            slot.drop_file()
            self._idle.append(slot)

    def wake(self) -> None:
        """Let a ``poll`` that waits return now. May be called by any thread."""
        os.eventfd_write(self._waker, 1)

    def poll(self, timeout: float) -> list[Fetched]:
        """Drive the transfers until one ends, ``wake`` is called, or ``timeout`` seconds are over."""
        deadline = time.monotonic() + timeout
        while True:
            now = time.monotonic()
            if self._active and now >= self._expiry:
                self._expiry = now + _EXPIRY_STEP
                self._expire(now)
            until = deadline
            if self._active:
                until = min(until, self._expiry)
            if self._timer is not None:
                until = min(until, self._timer)
            woken = self._step(0.0 if self._finished else max(0.0, until - now))
            if self._finished or woken or time.monotonic() >= deadline:
                finished, self._finished = self._finished, []
                return finished

    def close(self) -> None:
        """Cancel everything and give the connections back."""
        for key in list(self._active):
            self.cancel(key)
        for slot in self._idle:
            slot.curl.close()
        self._idle.clear()
        self._slots.clear()
        self._multi.close()
        self._epoll.close()
        os.close(self._waker)

    def _step(self, wait: float) -> bool:
        """Wait for sockets, let libcurl work, collect what ended; True if somebody called ``wake``."""
        woken = False
        for descriptor, events in self._epoll.poll(wait):
            if descriptor == self._waker:
                os.eventfd_read(self._waker)
                woken = True
                continue
            mask = pycurl.CSELECT_IN if events & ~select.EPOLLOUT else 0
            if events & ~select.EPOLLIN:
                mask |= pycurl.CSELECT_OUT
            self._multi.socket_action(descriptor, mask)
        if self._timer is not None and time.monotonic() >= self._timer:
            self._timer = None
            self._multi.socket_action(pycurl.SOCKET_TIMEOUT, 0)
        left = 1
        while left:
            left, good, bad = self._multi.info_read()
            for curl in good:
                self._ended(self._slots[curl], pycurl.E_OK, "")
            for curl, code, detail in bad:
                self._ended(self._slots[curl], code, detail)
        return woken

    def _watch(self, what: int, descriptor: int, _multi: Any, _data: Any) -> None:
        """Libcurl's socket callback: which sockets to wait for."""
        if what == pycurl.POLL_REMOVE:
            try:
                self._epoll.unregister(descriptor)
            except OSError:
                return  # closed already, which has unregistered it
            return
        events = select.EPOLLIN if what & pycurl.POLL_IN else 0
        if what & pycurl.POLL_OUT:
            events |= select.EPOLLOUT
        try:
            self._epoll.modify(descriptor, events)
        except FileNotFoundError:
            self._epoll.register(descriptor, events)

    def _set_timer(self, milliseconds: int) -> None:
        """Libcurl's timer callback."""
        self._timer = None if milliseconds < 0 else time.monotonic() + milliseconds / 1000

    def _expire(self, now: float) -> None:
        """End the transfers that have taken longer than their size so far allows."""
        limits = self._config.download
        for slot in list(self._active.values()):
            received = slot.size + slot.discarded
            if now - slot.begun > limits.timeout_s + received / limits.low_speed_bytes:
                self._multi.remove_handle(slot.curl)
                text = f"the transfer took too long: {received} bytes in {now - slot.begun:.0f} s"
                self._finish(slot, TransientError("timeout", text))

    def _ended(self, slot: Slot, code: int, detail: str) -> None:
        """Libcurl is done with one request: follow a redirect, or finish the transfer."""
        self._multi.remove_handle(slot.curl)
        slot.answer = slot.answer or read_answer(slot.lines)
        try:
            if slot.answer.status in REDIRECTS and code in (pycurl.E_OK, pycurl.E_WRITE_ERROR):
                self._redirect(slot)
                return
            error = slot.error or self._judge(slot, slot.answer, code, detail)
        except PermanentError as refusal:
            error = refusal
        self._finish(slot, error)

    def _judge(self, slot: Slot, answer: Answer, code: int, detail: str) -> RecordError | None:
        files = self._config.files
        if slot.refused is not None and not slot.opened and code != pycurl.E_OK:
            return PermanentError(
                "url_address", f"the host's address {slot.refused} is not public, so it was not connected to"
            )
        if answer.status >= 400 or (answer.status != 200 and code in (pycurl.E_OK, pycurl.E_WRITE_ERROR)):
            return judge_status(answer.status, float(slot.curl.getinfo(pycurl.RETRY_AFTER) or 0))
        if code != pycurl.E_OK:
            return judge_code(code, detail, max_bytes=files.max_bytes, http_status=answer.status or None)
        if not answer.bounded and not files.accept_unknown_length:
            return TransientError(
                "unknown_length",
                "the host announced no length, so nothing proves that the file is complete; "
                "files.accept_unknown_length would take it",
                http_status=answer.status,
            )
        return None

    def _redirect(self, slot: Slot) -> None:
        """Go where the answer points; raises PermanentError where that may not be."""
        assert slot.answer is not None
        status, location = slot.answer.status, slot.answer.location
        if not location:
            raise PermanentError(
                f"http_{status}", f"the host answered {status} without saying where to", http_status=status
            )
        # Not libcurl's REDIRECT_URL, which leaves out the user-info the policy is to refuse.
        target = urljoin(slot.url, location)
        slot.redirects += 1
        if slot.redirects > self._config.download.max_redirects:
            raise PermanentError(
                "redirects", f"more than {self._config.download.max_redirects} redirects", http_status=status
            )
        self._policy.check(target)
        slot.hop(target)
        self._multi.add_handle(slot.curl)

    def _finish(self, slot: Slot, error: RecordError | None) -> None:
        del self._active[slot.key]
        self._idle.append(slot)
        if error is not None:
            slot.drop_file()
            self._finished.append(Fetched(slot.key, slot.path, error))
            return
        file, slot.file = slot.file, -1
        body, slot.body = b"".join(slot.body), []
        assert slot.answer is not None
        self._finished.append(
            Fetched(
                *(slot.key, slot.path, None, file, body, slot.size, slot.hash.hexdigest()),
                *(slot.answer.status, slot.answer.content_type, slot.head),
            )
        )
