"""What Linux offers to confine a process, from Python without other packages: namespaces, capabilities, limits."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
from pathlib import Path

NOBODY = 65534
INNER = 1000  # the user that a program believes to be
_USER, _MOUNTS, _PIDS, _NET, _IPC, _UTS, _CGROUP = (
    0x10000000, 0x00020000, 0x20000000, 0x40000000, 0x08000000, 0x04000000, 0x02000000,
)  # fmt: skip
_NOSUID, _NODEV, _READONLY = 2, 4, 1
_DEATH, _DUMPABLE, _NO_NEW_PRIVILEGES, _SUBREAPER = 1, 4, 38, 36

_libc = ctypes.CDLL(None, use_errno=True)


def call(name: str, *arguments: object) -> None:
    """A function of the C library that returns −1 on failure. Raises `OSError`."""
    if getattr(_libc, name)(*arguments) == -1:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")


def control(option: int, value: int) -> None:
    """prctl(2) with one argument."""
    call("prctl", option, ctypes.c_ulong(value), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0))


def leave_root() -> None:
    """Become nobody when we are root: limits on processes do not bind root."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)


def hide() -> None:
    """Memory and descriptors of this process cannot be read or traced by others of the same user."""
    control(_DUMPABLE, 0)


def die_with_parent() -> None:
    """This process is killed when its parent ends."""
    control(_DEATH, signal.SIGKILL)


def adopt() -> None:
    """Orphans below this process become its children, so that it can end them."""
    control(_SUBREAPER, 1)


def fresh_namespaces() -> None:
    """New namespaces for this process and what it forks: users, mounts, network, IPC, host name; process ids for children.

    The network has no interface that is up, /proc is empty, /tmp and /dev/shm are small and new. Raises `OSError`.
    """
    user, group = os.getuid(), os.getgid()
    control(_DUMPABLE, 1)  # else the files below belong to root
    call("unshare", _USER | _MOUNTS | _PIDS | _NET | _IPC | _UTS | _CGROUP)
    for name, text in (("setgroups", "deny"), ("uid_map", f"{INNER} {user} 1"), ("gid_map", f"{INNER} {group} 1")):
        descriptor = os.open(f"/proc/self/{name}", os.O_WRONLY)  # not as a text file: every program pays for this
        os.write(descriptor, text.encode())
        os.close(descriptor)
    for folder, options, flags in (
        ("/tmp", "size=16m,nr_inodes=2k,mode=700", 0),
        ("/dev/shm", "size=4m,nr_inodes=128,mode=700", 0),
        ("/proc", "size=4k,nr_inodes=2", _READONLY),
    ):
        call("mount", b"none", folder.encode(), b"tmpfs", ctypes.c_ulong(_NOSUID | _NODEV | flags), options.encode())
    os.chdir("/tmp")


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


def drop_capabilities() -> None:
    """No capability is left, and with no new privileges none can come back through a file that is executed."""
    control(_NO_NEW_PRIVILEGES, 1)
    header, nothing = _Header(0x20080522, 0), (ctypes.c_uint32 * 6)()
    call("capset", ctypes.byref(header), ctypes.byref(nothing))


def limit(seconds: int, memory: int, processes: int) -> None:
    """Limits of each process below this one: `seconds` of CPU, `memory` bytes of address space, 16 MiB a file, 64 descriptors;
    `processes` is the number of processes and threads of the user in its namespace."""
    for which, soft, hard in (
        (resource.RLIMIT_CPU, seconds, seconds),
        (resource.RLIMIT_AS, memory, memory),
        (resource.RLIMIT_NPROC, processes, processes),
        (resource.RLIMIT_FSIZE, 2**24, 2**24),
        (resource.RLIMIT_NOFILE, 64, 64),
        (resource.RLIMIT_CORE, 0, 0),
        (resource.RLIMIT_MSGQUEUE, 0, 0),
        (resource.RLIMIT_MEMLOCK, 0, 0),
    ):
        most = resource.getrlimit(which)[1]
        if most != resource.RLIM_INFINITY:
            soft, hard = min(soft, most), min(hard, most)
        resource.setrlimit(which, (soft, hard))


def tasks_of_user() -> int:
    """Processes and threads that this user has now, for a limit where the count is not a namespace's own."""
    count, user = 0, os.getuid()
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and entry.stat().st_uid == user:
                count += sum(1 for _ in (entry / "task").iterdir())
        except OSError:
            continue  # it ended while we looked
    return count
