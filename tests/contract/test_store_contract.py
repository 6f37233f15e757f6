"""The contract of ``storage.stores.Store``, held by our own folder and by a store of obstore's."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import obstore
import pytest
from obstore.store import MemoryStore

from pipelined.errors import PermanentError
from pipelined.storage.stores import LocalStore, ObjectStore, Store

#: One that goes in one request, and one that goes in parts.
SIZES = (1000, 20 * 1024 * 1024)


class Bench:
    """A store and a way to look into it."""

    def __init__(self, store: Store, read: Callable[[str], bytes], names: Callable[[], set[str]]) -> None:
        self.store, self.read, self.names = store, read, names


def local(folder: Path) -> Bench:
    root = folder / "store"
    root.mkdir()

    def names() -> set[str]:
        return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}

    return Bench(LocalStore(root), lambda path: (root / path).read_bytes(), names)


def memory(folder: Path) -> Bench:
    inner = MemoryStore()

    def names() -> set[str]:
        return {entry["path"] for batch in obstore.list(inner) for entry in batch}

    return Bench(ObjectStore(inner), lambda path: bytes(obstore.get(inner, path).bytes()), names)


@pytest.fixture(params=[local, memory])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Bench:
    made: Bench = request.param(tmp_path)
    return made


def put(bench: Bench, folder: Path, path: str, data: bytes) -> None:
    source = folder / "source"
    source.write_bytes(data)
    bench.store.put(path, source, len(data), hashlib.sha256(data).hexdigest())


@pytest.mark.parametrize("size", SIZES)
def test_a_file_arrives_whole_under_its_path(bench: Bench, tmp_path: Path, size: int) -> None:
    data = bytes(range(256)) * (size // 256) + b"end"
    put(bench, tmp_path, "s/a/t/x.pdf", data)
    assert bench.read("s/a/t/x.pdf") == data


@pytest.mark.parametrize("size", SIZES)
def test_putting_the_same_file_twice_leaves_one(bench: Bench, tmp_path: Path, size: int) -> None:
    for _ in range(2):
        put(bench, tmp_path, "s/a/t/x.pdf", b"x" * size)
    assert bench.names() == {"s/a/t/x.pdf"}
    assert len(bench.read("s/a/t/x.pdf")) == size


def test_another_content_under_the_same_path_replaces_it(bench: Bench, tmp_path: Path) -> None:
    put(bench, tmp_path, "s/a/t/x.pdf", b"first")
    put(bench, tmp_path, "s/a/t/x.pdf", b"second, longer")
    assert bench.read("s/a/t/x.pdf") == b"second, longer"
    assert bench.names() == {"s/a/t/x.pdf"}


def test_names_beyond_ascii_are_kept(bench: Bench, tmp_path: Path) -> None:
    put(bench, tmp_path, "s/a/t/Schädenübersicht 漢字 #1.pdf", b"x")
    assert bench.names() == {"s/a/t/Schädenübersicht 漢字 #1.pdf"}


def test_an_empty_file_is_a_file(bench: Bench, tmp_path: Path) -> None:
    put(bench, tmp_path, "s/a/t/x.txt", b"")
    assert bench.read("s/a/t/x.txt") == b""


@pytest.mark.parametrize("size", SIZES)
def test_a_store_holds_what_was_put_and_no_other_file(bench: Bench, tmp_path: Path, size: int) -> None:
    data = b"x" * size
    digest, other = hashlib.sha256(data).hexdigest(), hashlib.sha256(b"y" * size).hexdigest()
    assert not bench.store.holds("s/a/t/x.pdf", size, digest)
    put(bench, tmp_path, "s/a/t/x.pdf", data)
    assert bench.store.holds("s/a/t/x.pdf", size, digest)
    assert not bench.store.holds("s/a/t/x.pdf", size, other)
    assert not bench.store.holds("s/a/t/x.pdf", size + 1, digest)
    assert not bench.store.holds("s/a/t/y.pdf", size, digest)
    assert bench.names() == {"s/a/t/x.pdf"}


def test_neither_a_folder_nor_what_lies_beyond_a_file_is_a_file_held(bench: Bench, tmp_path: Path) -> None:
    put(bench, tmp_path, "s/a/x.txt", b"")
    empty = hashlib.sha256(b"").hexdigest()
    assert bench.store.holds("s/a/x.txt", 0, empty)
    assert not bench.store.holds("s/a", 0, empty)
    assert not bench.store.holds("s/a/x.txt/y.txt", 0, empty)


@pytest.mark.parametrize("path", ["../x", "s/../../x", "/etc/x", "s//x", "", "s/./x", "s/a\x00b"])
def test_a_path_that_leads_out_of_the_store_is_refused(bench: Bench, tmp_path: Path, path: str) -> None:
    with pytest.raises(PermanentError):
        put(bench, tmp_path, path, b"x")
    with pytest.raises(PermanentError):
        bench.store.holds(path, 1, "0" * 64)
    assert bench.names() == set()


def test_a_missing_source_is_told_as_what_it_is(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        bench.store.put("s/a/t/x.pdf", tmp_path / "nowhere", 1, "0" * 64)
    assert bench.names() == set()
