from __future__ import annotations

import hashlib
import os
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import obstore
import obstore.store as object_stores
import pytest

from blobs import login, serving, source
from pipelined.errors import (
    AuthError,
    ConfigError,
    DependencyError,
    PermanentError,
    RecordError,
    TransientError,
)
from pipelined.storage.stores import LocalStore, ObjectStore, open_store


def everything(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


@pytest.mark.parametrize("size", [0, 10, 9 * 1024 * 1024])
def test_a_file_put_into_a_folder_is_there_and_nothing_else(tmp_path: Path, size: int) -> None:
    store = open_store((tmp_path / "st ore").as_uri(), timeout_s=5)
    file, length, digest = source(tmp_path, os.urandom(size))
    store.put("s/a/t/ü.pdf", file, length, digest)
    assert (tmp_path / "st ore/s/a/t/ü.pdf").read_bytes() == file.read_bytes()
    assert everything(tmp_path / "st ore") == ["s/a/t/ü.pdf"]


def test_putting_the_same_file_again_and_a_new_one_over_it_leaves_one_file(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    file, size, digest = source(tmp_path, b"one")
    store.put("a/b.txt", file, size, digest)
    store.put("a/b.txt", file, size, digest)
    store.put("a/b.txt", *source(tmp_path, b"longer than one"))
    assert (tmp_path / "store/a/b.txt").read_bytes() == b"longer than one"
    assert everything(tmp_path / "store") == ["a/b.txt"]


def test_what_an_interrupted_put_left_behind_is_used_up_by_the_next(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    file, size, digest = source(tmp_path, b"whole")
    store.put("a/b.txt", file, size, digest)
    name = hashlib.blake2b(b"b.txt", digest_size=12).hexdigest()
    (tmp_path / f"store/a/.{name}.part").write_bytes(b"half of something much longer than the file")
    store.put("a/b.txt", file, size, digest)
    assert everything(tmp_path / "store") == ["a/b.txt"]
    assert (tmp_path / "store/a/b.txt").read_bytes() == b"whole"


def test_many_at_once_on_one_path_leave_one_whole_file(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    files = [source(tmp_path, bytes([number]) * 200_000, f"s{number}") for number in range(8)]
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for _ in range(10):
                store.put("a/b.bin", *files[number])
        except BaseException as error:
            errors.append(error)
            raise

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not errors
    data = (tmp_path / "store/a/b.bin").read_bytes()
    assert len(data) == 200_000
    assert len(set(data)) == 1
    assert everything(tmp_path / "store") == ["a/b.bin"]


@pytest.mark.parametrize(
    "path",
    ["../x", "a/../x", "/etc/passwd", "a//b", "", ".", "a/.", "a\x00b", "a\nb", "ü" * 128, "a/" * 600 + "b"],
)
def test_a_path_that_leads_elsewhere_is_refused(tmp_path: Path, path: str) -> None:
    file = source(tmp_path, b"x")
    for store in (LocalStore(tmp_path / "store"), ObjectStore(object_stores.MemoryStore())):
        with pytest.raises(PermanentError) as caught:
            store.put(path, *file)
        assert caught.value.code == "store_path"
    assert everything(tmp_path) == ["source"]


def test_a_path_through_a_file_or_onto_a_folder_is_refused(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    file = source(tmp_path, b"x")
    store.put("a/b", *file)
    for path in ("a/b/c", "a"):
        with pytest.raises(PermanentError) as caught:
            store.put(path, *file)
        assert caught.value.code == "store_path"


def test_a_missing_source_is_told_as_such(tmp_path: Path) -> None:
    for store in (LocalStore(tmp_path / "store"), ObjectStore(object_stores.MemoryStore())):
        for size in (1, 9 * 1024 * 1024):
            with pytest.raises(FileNotFoundError):
                store.put("a/b", tmp_path / "nothing", size, "00")


def test_a_disk_that_does_not_work_is_a_dependency_that_is_down(tmp_path: Path) -> None:
    file = source(tmp_path, b"x")
    with pytest.raises(RecordError) as caught:
        LocalStore(Path("/proc/nothing-can-be-made-here")).put("a/b", *file)
    assert isinstance(caught.value, DependencyError)


@pytest.mark.parametrize("size", [0, 10, 9 * 1024 * 1024])
def test_an_object_store_keeps_the_file_and_its_hash(tmp_path: Path, size: int) -> None:
    memory = object_stores.MemoryStore()
    store = ObjectStore(memory)
    file, length, digest = source(tmp_path, os.urandom(size))
    store.put("s/a/t/ü~1.pdf", file, length, digest)
    found = obstore.get(memory, "s/a/t/ü~1.pdf")
    assert bytes(found.bytes()) == file.read_bytes()
    assert found.attributes["sha256"] == digest


@pytest.mark.parametrize("size", [10, 9 * 1024 * 1024])
def test_a_file_that_is_there_already_is_not_written_again(tmp_path: Path, size: int) -> None:
    memory = object_stores.MemoryStore()
    store = ObjectStore(memory)
    file = source(tmp_path, bytes(size))
    store.put("a", *file)
    before = obstore.head(memory, "a")["e_tag"]
    store.put("a", *file)
    assert obstore.head(memory, "a")["e_tag"] == before


@pytest.mark.parametrize("size", [10, 9 * 1024 * 1024])
@pytest.mark.parametrize("other", [10, 11])
def test_another_file_under_the_same_path_is_replaced(tmp_path: Path, size: int, other: int) -> None:
    memory = object_stores.MemoryStore()
    store = ObjectStore(memory)
    store.put("a", *source(tmp_path, b"y" * other))
    file = source(tmp_path, bytes(size))
    store.put("a", *file)
    assert bytes(obstore.get(memory, "a").bytes()) == bytes(size)


def test_a_store_without_metadata_is_used_without(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    store = ObjectStore(object_stores.LocalStore(tmp_path / "store"))
    file = source(tmp_path, b"x")
    store.put("a/b", *file)
    store.put("a/b", *file)
    assert (tmp_path / "store/a/b").read_bytes() == b"x"


@pytest.fixture
def azure(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with serving(monkeypatch) as url:
        yield url


@pytest.mark.parametrize(
    ("status", "kind", "code"),
    [
        (401, AuthError, "store_auth"),
        (403, AuthError, "store_forbidden"),
        (404, DependencyError, "store_not_found"),
        (429, DependencyError, "store_down"),
        (500, DependencyError, "store_down"),
        (503, DependencyError, "store_down"),
        (400, TransientError, "store_http_400"),
        (413, TransientError, "store_http_413"),
    ],
)
def test_what_the_store_answers_says_who_must_act(
    azure: str, tmp_path: Path, status: int, kind: type[RecordError], code: str
) -> None:
    store = open_store(azure, timeout_s=5, auth=login(tmp_path))
    with pytest.raises(kind) as caught:
        store.put(f"a/{status}", *source(tmp_path, b"x"))
    assert caught.value.code == code
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "kind", "code"),
    [
        (403, AuthError, "store_forbidden"),
        (503, DependencyError, "store_down"),
        (400, TransientError, "store_http_400"),
    ],
)
def test_a_store_that_cannot_say_what_it_holds_is_told_as_when_it_takes_nothing(
    azure: str, tmp_path: Path, status: int, kind: type[RecordError], code: str
) -> None:
    store = open_store(azure, timeout_s=5, auth=login(tmp_path))
    with pytest.raises(kind) as caught:
        store.holds(f"a/{status}", 1, "0" * 64)
    assert caught.value.code == code
    assert not store.holds("a/404", 1, "0" * 64)


def test_a_folder_that_cannot_be_read_is_a_dependency_that_is_down(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(DependencyError) as caught:
        LocalStore(tmp_path).holds("loop", 1, "0" * 64)
    assert caught.value.code == "disk_error"


def test_looking_at_a_large_file_takes_little_memory(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    file, size, digest = source(tmp_path, bytes(32 * 1024 * 1024))
    store.put("a/b", file, size, digest)
    tracemalloc.start()
    try:
        assert store.holds("a/b", size, digest)
        assert tracemalloc.get_traced_memory()[1] < 2 * 1024 * 1024
    finally:
        tracemalloc.stop()


def test_a_file_another_one_placed_is_durable_when_it_is_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "store"
    file = source(tmp_path, b"x")
    LocalStore(root).put("s/a/b", *file)
    synced: list[Path] = []
    monkeypatch.setattr("pipelined.storage.stores.sync_folder", synced.append)
    assert LocalStore(root).holds("s/a/b", *file[1:])
    assert synced == [root / "s/a", root / "s", root, *root.parents]


def test_a_store_that_does_not_answer_is_down(
    tmp_path: Path, azure: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ENDPOINT", "http://127.0.0.1:1")
    store = open_store(azure, timeout_s=2, auth=login(tmp_path))
    with pytest.raises(DependencyError) as caught:
        store.put("a", *source(tmp_path, b"x"))
    assert caught.value.code == "store_down"


def test_onelake_is_addressed_by_workspace_and_item(tmp_path: Path) -> None:
    store = open_store(
        "abfss://workspace@onelake.dfs.fabric.microsoft.com/item.Lakehouse/Files/x",
        timeout_s=5,
        auth=login(tmp_path),
    )
    assert isinstance(store, ObjectStore)
    inner = store._store
    assert (inner.config["container_name"], inner.prefix) == ("workspace", "item.Lakehouse/Files/x")


@pytest.mark.parametrize("url", ["file:relative", "nothing://x", "just text"])
def test_a_url_that_is_no_store_is_a_configuration_error(url: str) -> None:
    with pytest.raises(ConfigError):
        open_store(url, timeout_s=5)


def test_the_name_of_a_new_root_is_made_durable_with_its_first_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    monkeypatch.setattr("pipelined.storage.stores.sync_folder", synced.append)
    store = LocalStore(tmp_path / "new" / "store")
    source = tmp_path / "file"
    source.write_bytes(b"x")
    for path in ("a/b.pdf", "a/c.pdf"):
        store.put(path, source, 1, "")
    assert synced == [tmp_path / "new", *(tmp_path / "new").parents]
