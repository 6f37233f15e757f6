"""The doctor at files and tables in Azure: a real Azurite, with all rights, with few, without a container."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from azure_storage import Azurite, azurite
from deltalake import DeltaTable
from examined import found

from pipelined.config import Config
from pipelined.config.leaves import built
from pipelined.doctor.finding import Finding, Outcome
from pipelined.lake.schemas import EVENTS, TABLES


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Azurite]:
    with azurite(tmp_path_factory.mktemp("azurite")) as running:
        yield running


def configured(container: str) -> Config:
    return built({"upload.url": f"az://{container}/files", "tables.url": f"az://{container}/tables"})


def told(findings: list[Finding]) -> list[tuple[Outcome, str, str]]:
    return [(each.outcome, each.found, each.fix) for each in findings]


def test_files_and_tables_in_azure_are_tried_and_left_as_they_were(storage: Azurite) -> None:
    storage.make_container("well")
    environ, config = storage.environment(), configured("well")
    new = found(config, "store", "tables", environ=environ)
    assert told(new["store"]) == [
        (Outcome.OK, "a file was written to az://well/files, read and deleted", ""),
    ]
    assert told(new["tables"]) == [
        (Outcome.OK, f"{spec.name('xact')}: not there yet; the first start makes it", "") for spec in TABLES
    ]
    assert storage.blobs("well") == []

    options = {name.lower(): value for name, value in environ.items()}
    DeltaTable.create(
        "az://well/tables/xact_events",
        EVENTS.schema,
        partition_by=list(EVENTS.partition_by),
        storage_options=options,
    )
    before = storage.blobs("well")
    (events, *_) = found(config, "tables", environ=environ)["tables"]
    assert told([events]) == [
        (Outcome.OK, "xact_events: version 0, its columns fit, and it can be written to", "")
    ]
    assert storage.blobs("well") == before, "what is written to see whether that can be done is removed"
    assert len(before) == 1


def test_who_may_only_read_is_told_with_the_rights_that_are_missing(storage: Azurite) -> None:
    storage.make_container("read-only")
    environ = storage.environment("rl")
    looked = found(configured("read-only"), "store", "tables", environ=environ)
    assert told(looked["tables"]) == [
        (
            Outcome.FAIL,
            "the store knows us, and we may not write to az://read-only/tables/xact_events, read and delete "
            "there",
            "give the identity of tables.auth these rights",
        )
    ]
    (files,) = looked["store"]
    assert files.outcome is Outcome.FAIL
    assert "we may not write there: give the identity of upload.auth the rights" in files.found
    assert environ["AZURE_STORAGE_SAS_KEY"].rpartition("sig=")[2] not in str(looked)
    assert storage.blobs("read-only") == []


def test_a_container_that_is_missing_is_told_and_not_taken_for_tables_to_be_made(storage: Azurite) -> None:
    looked = found(configured("missing"), "store", "tables", environ=storage.environment())
    assert told(looked["tables"]) == [
        (
            Outcome.FAIL,
            "there is no container for az://missing/tables/xact_events",
            "make the container, or set tables.url to one that is there",
        )
    ]
    (files,) = looked["store"]
    assert files.outcome is Outcome.FAIL
    assert "the store's container does not exist: check upload.url" in files.found
