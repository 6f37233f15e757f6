"""How full the disks are that the daemon writes to: asked when the metrics are."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from pipelined.config import Config

__all__ = ["DISK_METRICS", "DiskCollector"]

#: Name, label and meaning.
DISK_METRICS: tuple[tuple[str, str, str], ...] = (
    ("pipelined_disk_free_bytes", "folder", "Bytes that may still be written on the disk of a folder."),
    ("pipelined_disk_size_bytes", "folder", "Bytes that the disk of a folder holds in all."),
)


class DiskCollector(Collector):
    """The folders of this host: state, cache, and files and tables where these lie on a local disk."""

    def __init__(self, config: Config) -> None:
        folders = {"state": config.state_dir, "cache": config.cache_dir}
        for name, url in (("files", config.upload.url), ("tables", config.tables.url)):
            parts = urlsplit(url)
            if parts.scheme == "file":
                folders[name] = unquote(parts.path)
        self._folders = {name: Path(folder) for name, folder in folders.items()}

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Both families. A folder that is not there yet is judged by the one it will be made in."""
        free, size = (GaugeMetricFamily(name, told, labels=[label]) for name, label, told in DISK_METRICS)
        for name, folder in self._folders.items():
            try:
                found = shutil.disk_usage(next(path for path in (folder, *folder.parents) if path.exists()))
            except OSError:
                continue  # a disk that is gone has no numbers; its workers say what is wrong
            free.add_metric([name], found.free)
            size.add_metric([name], found.total)
        yield from (free, size)
