"""The jars of the local Kafka: the lock is read strictly, and nothing that differs from it is taken."""

from __future__ import annotations

import functools
import hashlib
import http.server
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import realparts
from pipelined.errors import UnavailableError
from pipelined.local import jars
from pipelined.local.jars import KAFKA, LOCK, Jar, cache_folder, fetch_jars, read_lock

CONTENT = b"the bytes of a jar" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
JAR = Jar("org.example:thing:1.2.3", SHA256, len(CONTENT))
IN_REPOSITORY = Path("org/example/thing/1.2.3/thing-1.2.3.jar")


class Repository(http.server.ThreadingHTTPServer):
    """An artifact repository on the loopback that counts what it was asked for."""

    def __init__(self, folder: Path) -> None:
        self.asked: list[str] = []
        server = self

        class Handler(http.server.SimpleHTTPRequestHandler):
            def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
                server.asked.append(self.path)

            def log_error(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
                """Say nothing on stderr."""

        super().__init__(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Repository]:
    """The only repository jgo knows, by jgo's own configuration."""
    try:
        import jgo.maven  # noqa: F401 - whether it is there is the question
    except ImportError as error:
        realparts.require("jgo", str(error))
    folder = tmp_path / "repository"
    folder.mkdir()
    with Repository(folder) as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.02])
        thread.start()
        config = tmp_path / "jgo.conf"
        config.write_text(f"[repositories]\ncentral = {server.url}\n")
        monkeypatch.setenv("JGO_CONFIG_FILE", str(config))
        monkeypatch.setenv("M2_REPO", str(tmp_path / "own"))
        yield server
        server.shutdown()
        thread.join()


def put(root: Path, content: bytes = CONTENT) -> Path:
    path = root / IN_REPOSITORY
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    return path


def test_the_committed_lock_names_kafka_and_what_it_logs_with() -> None:
    locked = read_lock(LOCK)
    coordinates = [jar.coordinates for jar in locked]
    assert coordinates[0] == KAFKA
    assert "org.apache.logging.log4j:log4j-core:2.24.3" in coordinates
    assert len(coordinates) == len(set(coordinates)) == len({jar.filename for jar in locked})
    assert {c for c in coordinates if c.startswith("org.apache.kafka:") and not c.endswith(":4.3.1")} == set()
    assert 30_000_000 < sum(jar.size for jar in locked) < 60_000_000


@pytest.mark.parametrize(
    "line", ["org.example:thing:1.2.3 abc 5", "org.example:thing " + "0" * 64 + " 5", "one two three four"]
)
def test_a_bad_line_of_a_lock_is_named(tmp_path: Path, line: str) -> None:
    lock = tmp_path / "some.lock"
    lock.write_text(f"# a comment\n{line}\n")
    with pytest.raises(ValueError, match=r"some\.lock:2"):
        read_lock(lock)


def test_a_classifier_is_part_of_the_file_name() -> None:
    assert Jar("g:thing:1.0:linux-x86_64", SHA256, 1).filename == "thing-1.0-linux-x86_64.jar"


def test_jars_are_fetched_once_and_then_needed_no_more(tmp_path: Path, repository: Repository) -> None:
    put(tmp_path / "repository")
    seen: list[tuple[str, int, int]] = []
    libs = tmp_path / "libs"
    paths = fetch_jars(libs, [JAR], lambda *step: seen.append(step))
    assert [path.read_bytes() for path in paths] == [CONTENT]
    assert seen == [("fetching Apache Kafka", JAR.size, JAR.size)]
    asked = len(repository.asked)
    assert asked >= 1
    assert fetch_jars(libs, [JAR]) == paths
    assert len(repository.asked) == asked
    assert sorted(path.name for path in libs.iterdir()) == [".lock", "stamp", "thing-1.2.3.jar"]


def test_a_jar_with_another_checksum_is_refused_and_not_kept(tmp_path: Path, repository: Repository) -> None:
    put(tmp_path / "repository", b"something else")
    with pytest.raises(UnavailableError, match=r"org\.example:thing:1\.2\.3.*sha256") as caught:
        fetch_jars(tmp_path / "libs", [JAR])
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "libs").glob("**/*.jar")) == []
    assert not (tmp_path / "libs" / "stamp").exists()


def test_a_jar_changed_in_the_cache_is_fetched_again(tmp_path: Path, repository: Repository) -> None:
    put(tmp_path / "repository")
    (path,) = fetch_jars(tmp_path / "libs", [JAR])
    path.write_bytes(b"damaged")
    assert fetch_jars(tmp_path / "libs", [JAR])[0].read_bytes() == CONTENT


def test_what_a_killed_fetch_left_is_swept_away(tmp_path: Path, repository: Repository) -> None:
    put(tmp_path / "repository")
    partial = put(tmp_path / "libs" / ".fetch", CONTENT[:10])
    assert fetch_jars(tmp_path / "libs", [JAR])[0].read_bytes() == CONTENT
    assert not partial.exists()


def test_the_users_own_repository_is_used_and_left_as_it_is(tmp_path: Path, repository: Repository) -> None:
    own = put(tmp_path / "own")
    (path,) = fetch_jars(tmp_path / "libs", [JAR])
    assert path.read_bytes() == own.read_bytes() == CONTENT
    assert repository.asked == []


@pytest.mark.parametrize("reason", ["not there", "not reachable"])
def test_a_failed_fetch_says_in_one_line_what_and_what_to_do_instead(
    tmp_path: Path, repository: Repository, reason: str
) -> None:
    if reason == "not reachable":
        repository.server_close()
    with pytest.raises(UnavailableError) as caught:
        fetch_jars(tmp_path / "libs", [JAR])
    said = str(caught.value)
    assert "org.example:thing:1.2.3" in said
    assert "set KAFKA_BOOTSTRAP=host:port to use an existing cluster instead" in said
    assert "\n" not in said


def test_without_jgo_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jgo.config", None)
    with pytest.raises(UnavailableError, match=r"pip install 'pipelined\[local\]'"):
        fetch_jars(tmp_path / "libs", [JAR])


def test_jars_that_are_there_need_no_jgo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    libs = tmp_path / "libs"
    libs.mkdir()
    (libs / JAR.filename).write_bytes(CONTENT)
    monkeypatch.setitem(sys.modules, "jgo.config", None)
    assert fetch_jars(libs, [JAR]) == [libs / JAR.filename]


def test_the_cache_folder_is_the_environments_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    monkeypatch.setenv("PIPELINED_CACHE", "/own")
    assert cache_folder() == Path("/own")
    monkeypatch.delenv("PIPELINED_CACHE")
    assert cache_folder() == Path("/xdg/pipelined")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "pipelined"


def test_two_fetches_at_once_do_not_meet(tmp_path: Path, repository: Repository) -> None:
    put(tmp_path / "repository")
    results: list[list[Path]] = []
    threads = [
        threading.Thread(target=lambda: results.append(fetch_jars(tmp_path / "libs", [JAR])))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [[tmp_path / "libs" / JAR.filename]] * 4
    assert sum(path.endswith(".jar") for path in repository.asked) == 1


def test_the_package_names_no_repository() -> None:
    texts = [path.read_text() for path in Path(jars.__file__).parent.glob("*.*") if path.is_file()]
    assert [text for text in texts if "maven.apache.org" in text or "repo1" in text] == []
