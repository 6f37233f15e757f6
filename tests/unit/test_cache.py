from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pipelined.errors import DependencyError
from pipelined.storage.cache import Cache
from pipelined.storage.durable import Item, Placed, Placer, place


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def written(cache: Cache, data: bytes = b"data") -> tuple[int, str]:
    path = cache.temporary()
    file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o640)
    os.write(file, data)
    return file, path


def placed(cache: Cache, target: str, data: bytes = b"data") -> Path:
    file, path = written(cache, data)
    assert place([Item(1, file, path, target, str(cache.root))]) == [Placed(1)]
    return Path(target)


def test_a_files_place_is_its_trace_id_and_the_name_of_its_blob_path(cache: Cache) -> None:
    assert cache.target("trace", "s/a/trace/a_x.pdf") == f"{cache.root}/trace/a_x.pdf"


@pytest.mark.parametrize("trace_id", ["../../etc", "..", ".tmp", "a/b", "", "x\x00y"])
@pytest.mark.parametrize("blob_path", ["../..", "s/..", "", "/etc/passwd", "a/b\\..\\c"])
def test_no_message_leads_out_of_the_cache_folder(cache: Cache, trace_id: str, blob_path: str) -> None:
    target = Path(cache.target(trace_id, blob_path))
    assert target.parent.parent == cache.root
    assert target.parent.name not in ("", ".", "..", ".tmp")
    assert target.name not in ("", ".", "..")


@pytest.mark.parametrize("count", [1, 3, 4, 100])
def test_placed_files_are_whole_and_no_temporary_one_is_left(cache: Cache, count: int) -> None:
    items = []
    for number in range(count):
        file, path = written(cache, b"%d" % number)
        items.append(Item(number, file, path, cache.target(f"t{number}", "x.txt"), str(cache.root)))
    assert place(items) == [Placed(number) for number in range(count)]
    for number in range(count):
        assert (cache.root / f"t{number}/x.txt").read_bytes() == b"%d" % number
    assert len(list((cache.root / ".tmp").rglob("[0-9]*/[0-9]*"))) == 0


def test_a_file_of_the_same_name_is_replaced(cache: Cache) -> None:
    target = cache.target("t", "x.txt")
    placed(cache, target, b"old")
    assert placed(cache, target, b"new").read_bytes() == b"new"


def test_a_disk_that_fails_gives_each_file_an_error_and_leaves_none_behind(cache: Cache) -> None:
    file, path = written(cache)
    target = "/proc/nothing-can-be-made-here/x"
    (result,) = place([Item(1, file, path, target, "/proc")])
    assert isinstance(result.error, DependencyError)
    assert not Path(path).exists()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(file)


def test_a_placer_finishes_all_it_was_given_and_says_so(cache: Cache) -> None:
    wakened = threading.Semaphore(0)
    placer = Placer(3, str(cache.root), wakened.release)
    for number in range(25):
        file, path = written(cache)
        placer.place(number, file, b"", path, cache.target(f"t{number}", "x.txt"))
    for number in range(25, 50):
        placer.place(number, -1, b"in memory", cache.temporary(), cache.target(f"t{number}", "x.txt"))
    found: list[Placed] = []
    deadline = time.monotonic() + 30
    while len(found) < 50 and time.monotonic() < deadline:
        assert wakened.acquire(timeout=30)
        found += placer.results()
    placer.close()
    assert sorted(found) == [Placed(number) for number in range(50)]
    assert Path(cache.target("t30", "x.txt")).read_bytes() == b"in memory"


def test_removing_the_last_file_removes_its_folder_and_removing_twice_is_fine(cache: Cache) -> None:
    one = placed(cache, cache.target("t", "one.txt"))
    two = placed(cache, cache.target("t", "two.txt"))
    cache.remove(str(one))
    assert two.exists()
    cache.remove(str(two))
    assert not two.parent.exists()
    cache.remove(str(two))


@pytest.mark.parametrize(
    "path", ["/etc/hostname", "{root}/../x", "{root}/a/../../x", "{root}/x", "{root}/a/b/c"]
)
def test_a_path_outside_is_never_removed(cache: Cache, path: str) -> None:
    path = path.format(root=cache.root)
    assert not cache.holds(path)
    for name in ("x", "a/b/c"):
        (cache.root / name).parent.mkdir(parents=True, exist_ok=True)
        (cache.root / name).touch()
    cache.remove(path)
    assert (cache.root / "x").exists()
    assert (cache.root / "a/b/c").exists()


def test_files_keep_arriving_in_a_folder_that_is_tidied_at_the_same_time(cache: Cache) -> None:
    stop = threading.Event()

    def tidy() -> None:
        while not stop.is_set():
            cache.sweep(1.0)
            cache.remove(cache.target("t", "nothing.txt"))

    thread = threading.Thread(target=tidy)
    thread.start()
    try:
        for _ in range(100):
            cache.remove(str(placed(cache, cache.target("t", "x.txt"))))
    finally:
        stop.set()
        thread.join()
    assert not (cache.root / "t/x.txt").exists()


def test_old_files_are_swept_and_young_ones_stay(cache: Cache) -> None:
    old = placed(cache, cache.target("old", "x.txt"))
    mixed = placed(cache, cache.target("mixed", "x.txt"))
    young = placed(cache, cache.target("mixed", "y.txt"))
    for path in (old, mixed):
        os.utime(path, (time.time() - 7200, time.time() - 7200))
    assert cache.sweep(1.0) == 2
    assert not old.parent.exists()
    assert not mixed.exists()
    assert young.exists()


def test_a_sweep_ends_when_told_to(cache: Cache) -> None:
    old = placed(cache, cache.target("old", "x.txt"))
    os.utime(old, (0, 0))
    stop = threading.Event()
    stop.set()
    assert cache.sweep(1.0, stop) == 0
    assert old.exists()


def test_a_cache_that_does_not_exist_yet_is_swept_without_complaint(cache: Cache) -> None:
    assert cache.sweep(1.0) == 0


def test_what_a_killed_process_was_writing_is_swept_and_what_a_living_one_writes_is_not(cache: Cache) -> None:
    code = (
        "import sys\n"
        "from pipelined.storage.cache import Cache\n"
        "path = Cache(sys.argv[1]).temporary()\n"
        "open(path, 'w').write('half')\n"
        "print(path, flush=True)\n"
        "sys.stdin.read()\n"
    )
    mine = Path(written(cache)[1])
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(cache.root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    with other:
        assert other.stdout
        theirs = Path(other.stdout.readline().decode().strip())
        assert cache.sweep(1.0) == 0
        assert theirs.exists()
        other.kill()
    assert cache.sweep(1.0) == 1
    assert not theirs.parent.exists()
    assert mine.exists()


def test_a_closed_cache_leaves_no_temporary_folder(cache: Cache) -> None:
    written(cache)
    cache.close()
    assert list((cache.root / ".tmp").iterdir()) == []


def test_a_cache_folder_that_cannot_be_made_is_a_dependency_that_is_down(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DependencyError) as caught:
        Cache(tmp_path / "file/cache").temporary()
    assert caught.value.code == "disk_error"


def test_a_file_whose_folder_is_emptied_is_told_as_gone_and_the_next_lies_in_a_new_folder(
    cache: Cache, caplog: pytest.LogCaptureFixture
) -> None:
    path = cache.temporary()
    shutil.rmtree(cache.root)
    (result,) = place([Item(1, -1, path, cache.target("t", "x.txt"), str(cache.root), b"data")])
    assert result.error is not None
    assert result.error.code == "disk_gone"
    cache.abandon(path)
    cache.abandon(path)
    assert caplog.text.count("somebody emptied the cache folder") == 1
    assert placed(cache, cache.target("t", "x.txt")).read_bytes() == b"data"
    cache.close()
    assert list((cache.root / ".tmp").iterdir()) == []


def test_what_is_left_of_an_abandoned_folder_is_swept(cache: Cache) -> None:
    path = cache.temporary()
    Path(path).write_bytes(b"data")
    cache.abandon(path)
    assert cache.sweep(1) == 1
    assert not Path(path).exists()
