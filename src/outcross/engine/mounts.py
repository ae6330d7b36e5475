"""Which file systems lie on another machine. SQLite's journal in shared memory and its locks hold on one machine only: on such a file
system two hosts can write one journal at once, and destroy it.

Refused by type: the network and cluster file systems below, by whatever FUSE program they are mounted, and 9p over TCP or RDMA.
Everything else counts as local: overlay, virtiofs and 9p over virtio or a file descriptor are how containers and small virtual
machines see a disk of their host, and a FUSE program that is not listed may as well be an encrypted folder.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from outcross.errors import StoreError

TABLE = Path("/proc/self/mountinfo")
NETWORK = frozenset(
    [
        "nfs",
        "nfs4",
        "cifs",
        "smb2",
        "smb3",
        "smbfs",
        "ncpfs",
        "afs",
        "openafs",
        "coda",
        "ceph",
        "lustre",
        "gpfs",
        "beegfs",
        "fhgfs",
        "panfs",
        "pvfs2",
        "orangefs",
        "ocfs2",
        "gfs",
        "gfs2",
        "glusterfs",
        "moosefs",
        "davfs",
        "wekafs",
        "quobyte",
    ]
)
FUSE = frozenset(
    [
        "sshfs",
        "s3fs",
        "gcsfuse",
        "rclone",
        "glusterfs",
        "ceph",
        "ceph-fuse",
        "juicefs",
        "mount-s3",
        "mountpoint-s3",
        "s3backer",
        "goofys",
        "blobfuse",
        "blobfuse2",
        "curlftpfs",
        "davfs",
        "davfs2",
        "mfs",
        "moosefs",
        "lizardfs",
        "seaweedfs",
        "alluxio",
        "alluxio-fuse",
        "fuse_dfs",
        "hdfs",
        "smbnetfs",
        "quobyte",
        "onedriver",
        "google-drive-ocamlfuse",
        "dbxfs",
    ]
)


@dataclass(frozen=True)
class Mount:
    """One line of the mount table."""

    place: Path
    kind: str
    source: str
    options: frozenset[str]

    @property
    def remote(self) -> bool:
        """Whether it lies on another machine."""
        family, _, program = self.kind.partition(".")
        if family == "9p":
            return bool(self.options & {"trans=tcp", "trans=rdma"})
        if family == "fuse":
            return (program or self.source.partition("#")[0].partition(":")[0]).lower() in FUSE
        return self.kind in NETWORK


def mounts(table: str) -> Iterator[Mount]:
    """The mounts in a table of the form of `/proc/self/mountinfo`, in its order."""
    for line in table.splitlines():
        left, dash, right = line.partition(" - ")
        words, rest = left.split(" "), right.split(" ")
        if dash and len(words) >= 6 and len(rest) >= 3:
            yield Mount(Path(_plain(words[4])), rest[0], _plain(rest[1]), frozenset(rest[2].split(",")))


def mount_of(path: Path, table: str) -> Mount | None:
    """Where an absolute `path` without links lies: the longest mount point above it, the last one of equals."""
    found: Mount | None = None
    for mount in mounts(table):
        if path.is_relative_to(mount.place) and (found is None or len(mount.place.parts) >= len(found.place.parts)):
            found = mount
    return found


def refuse_network(path: Path, table: str | None = None) -> None:
    """Raises `StoreError` when `path` lies on another machine. Without a mount table (not Linux) nothing is refused."""
    if table is None:
        table = TABLE.read_text(encoding="utf-8", errors="replace") if TABLE.exists() else ""
    mount = mount_of(path.resolve(), table)
    if mount is None or not mount.remote:
        return
    raise StoreError(
        f"the journal {path} would lie on a network file system ({mount.kind}, {mount.source}, mounted at {mount.place}), where its locks hold on "
        f"one machine only: two machines could write it at once and destroy it. Keep it on a disk of this machine{_instead(table, path.name)}; "
        "the other files of a run may stay where they are"
    )


def _instead(table: str, name: str) -> str:
    for folder in (Path.home() / ".cache" / "outcross", Path(tempfile.gettempdir())):
        mount = mount_of(folder.resolve(), table)
        if mount is not None and not mount.remote:
            return f", for example --journal {folder / name}"
    return " with --journal PATH"


def _plain(text: str) -> str:
    """Undo the table's octal escapes of blanks and backslashes."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)
