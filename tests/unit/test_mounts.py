"""Which file systems lie on another machine, told by the mount table's text."""

from __future__ import annotations

from pathlib import Path

import pytest

from outcross.engine.mounts import TABLE, mount_of, mounts, refuse_network
from outcross.errors import StoreError

MACHINE = r"""22 27 0:21 / /proc rw,relatime shared:5 - proc proc rw
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard
31 27 0:40 / /home rw,relatime shared:2 master:7 - nfs4 files.example:/home rw,vers=4.2,hard,proto=tcp
32 31 8:1 / /home/ann/fast rw - xfs /dev/nvme0n1p1 rw
33 27 0:41 / /mnt/our\040share rw - cifs //server/our\040share rw,vers=3.1.1
34 27 0:42 / /mnt/keys rw - fuse.gocryptfs /home/ann/.keys rw
35 27 0:43 / /mnt/far rw - fuse.sshfs ann@host:/data rw
36 27 0:44 / /mnt/twice rw - ext4 /dev/sdb rw
37 36 0:45 / /mnt/twice rw - lustre 10.0.0.1@tcp:/fs rw
"""


def kind(path: str, table: str = MACHINE) -> str:
    found = mount_of(Path(path), table)
    assert found is not None
    return found.kind


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/var/a.db", "ext4"),
        ("/home/ann/runs/a.db", "nfs4"),
        ("/home/ann/fast/a.db", "xfs"),  # the longest mount point counts
        ("/homestead/a.db", "ext4"),  # and whole names only
        ("/mnt/our share/a.db", "cifs"),
        ("/mnt/twice/a.db", "lustre"),  # mounted over
    ],
)
def test_a_path_belongs_to_the_mount_above_it(path: str, expected: str) -> None:
    assert kind(path) == expected


def test_what_is_refused_names_the_mount_and_where_to_go_instead() -> None:
    with pytest.raises(
        StoreError, match=r"network file system \(nfs4, files\.example:/home, mounted at /home\).*Keep it on a disk of this machine"
    ):
        refuse_network(Path("/home/ann/runs/a.db"), MACHINE)
    with pytest.raises(StoreError, match=r"cifs, //server/our share, mounted at /mnt/our share"):
        refuse_network(Path("/mnt/our share/a.db"), MACHINE)
    for path in ("/mnt/far/a.db", "/mnt/twice/deep/a.db"):
        with pytest.raises(StoreError, match="network file system"):
            refuse_network(Path(path), MACHINE)
    for path in ("/var/a.db", "/home/ann/fast/a.db", "/mnt/keys/a.db"):
        refuse_network(Path(path), MACHINE)


def line(kind: str, source: str = "x", options: str = "rw") -> str:
    return f"1 0 0:1 / / rw,relatime - {kind} {source} {options}\n"


@pytest.mark.parametrize(
    ("kind", "source", "options"),
    [
        *((name, "server:/x", "rw") for name in ("nfs", "nfs4", "cifs", "smb3", "ceph", "lustre", "gpfs", "beegfs", "afs", "glusterfs")),
        *((f"fuse.{name}", "x", "rw") for name in ("sshfs", "glusterfs", "s3fs", "rclone", "juicefs", "ceph-fuse")),
        ("fuse", "s3fs", "rw"),
        ("fuse", "sshfs#ann@host:/data", "rw"),
        ("9p", "10.0.0.1", "rw,trans=tcp,port=564"),
        ("9p", "10.0.0.1", "rw,trans=rdma"),
    ],
)
def test_other_machines(kind: str, source: str, options: str) -> None:
    (found,) = mounts(line(kind, source, options))
    assert found.remote


@pytest.mark.parametrize(
    ("kind", "source", "options"),
    [
        ("overlay", "overlay", "rw,lowerdir=/l,upperdir=/u,workdir=/w"),  # a container's root
        ("virtiofs", "myfs", "rw"),
        ("9p", "none", "rw,trans=fd,rfdno=4,wfdno=4"),  # gVisor's root, WSL's drives
        ("9p", "kataShared", "rw,trans=virtio,version=9p2000.L"),
        ("fuse.fuse-overlayfs", "fuse-overlayfs", "rw"),
        ("fuse.mergerfs", "a:b", "rw"),
        ("fuseblk", "/dev/sdc1", "rw"),
        *((name, "/dev/sda", "rw") for name in ("ext4", "xfs", "btrfs", "zfs", "tmpfs", "f2fs", "bcachefs", "exfat")),
    ],
)
def test_this_machine(kind: str, source: str, options: str) -> None:
    (found,) = mounts(line(kind, source, options))
    assert not found.remote


def test_without_a_table_nothing_is_refused_and_this_machines_own_is_read(tmp_path: Path) -> None:
    refuse_network(tmp_path / "a.db", "")
    refuse_network(tmp_path / "a.db")
    if TABLE.exists():
        assert mount_of(tmp_path.resolve(), TABLE.read_text()) is not None
