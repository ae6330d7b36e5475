"""A filter of system calls: what no honest solution to a programming task needs, and attacks on a kernel do.

Denied calls fail with EPERM. Sockets (but not socket pairs), tracing, namespaces, mounts, kernel keys, BPF, io_uring, memory that
outlives its limits (memfd, System V segments), and signals set to survive the parent. Known on x86-64 and ARM64.
"""

from __future__ import annotations

import ctypes
import platform
import struct
from functools import lru_cache

from outcross.verify.sandbox.inside.confine import call

# name → (x86-64, ARM64); −1: the machine has no such call
_DENIED = {
    "socket": (41, 198), "connect": (42, 203), "bind": (49, 200), "ptrace": (101, 117), "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271), "kcmp": (312, 272), "pidfd_getfd": (438, 438), "unshare": (272, 97), "setns": (308, 268),
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51), "open_tree": (428, 428),
    "move_mount": (429, 429), "fsopen": (430, 430), "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433),
    "mount_setattr": (442, 442), "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427), "add_key": (248, 217),
    "request_key": (249, 218), "keyctl": (250, 219), "init_module": (175, 105), "finit_module": (313, 273),
    "delete_module": (176, 106), "kexec_load": (246, 104), "kexec_file_load": (320, 294), "reboot": (169, 142),
    "open_by_handle_at": (304, 265), "memfd_create": (319, 279), "memfd_secret": (447, 447), "shmget": (29, 194),
    "msgget": (68, 186), "semget": (64, 190), "mq_open": (240, 180), "syslog": (103, 116), "quotactl": (179, 60),
    "swapon": (167, 224), "acct": (163, 89), "personality": (135, 92), "fanotify_init": (300, 262),
}  # fmt: skip
_MISSING = {"clone3": (435, 435)}  # its flags cannot be seen: the C library falls back to clone
_CLONE, _PRCTL = (56, 220), (157, 167)
_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
_NEW_NAMESPACE = 0x7E020000  # every CLONE_NEW… flag of clone
_ALLOW, _KILL, _DENY, _ABSENT = 0x7FFF0000, 0x80000000, 0x00050001, 0x00050026  # EPERM 1, ENOSYS 38
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_X32 = 0x40000000
_SET_FILTER, _FILTER, _DEATH_SIGNAL = 22, 2, 1


def available() -> bool:
    """Whether the filter knows this machine; makes it ready."""
    return platform.machine() in _MACHINES and bool(_code())


@lru_cache
def _code() -> ctypes.Array[ctypes.c_char]:
    """The filter as the kernel reads it; made once, before any program is forked."""
    column, architecture = _MACHINES[platform.machine()]
    body: list[tuple[int, int, int, int]] = [(_LOAD, 0, 0, 4), (_EQUAL, 1, 0, architecture), (_RETURN, 0, 0, _KILL), (_LOAD, 0, 0, 0)]
    if column == 0:
        body += [(_AT_LEAST, 0, 1, _X32), (_RETURN, 0, 0, _KILL)]
    for numbers, answer in [*((pair, _DENY) for pair in _DENIED.values()), *((pair, _ABSENT) for pair in _MISSING.values())]:
        body += [(_EQUAL, 0, 1, numbers[column]), (_RETURN, 0, 0, answer)]
    # the low half of the first argument is at offset 16 on these little-endian machines
    body += [
        (_EQUAL, 0, 4, _CLONE[column]),
        (_LOAD, 0, 0, 16),
        (_ANY_BIT, 0, 1, _NEW_NAMESPACE),
        (_RETURN, 0, 0, _DENY),
        (_RETURN, 0, 0, _ALLOW),
    ]
    body += [
        (_EQUAL, 0, 3, _PRCTL[column]),
        (_LOAD, 0, 0, 16),
        (_EQUAL, 0, 1, _DEATH_SIGNAL),
        (_RETURN, 0, 0, _DENY),
        (_RETURN, 0, 0, _ALLOW),
    ]
    return ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in body))


def install() -> None:
    """Filter this process and all it will start; new privileges must be off already. Raises `OSError`."""
    code = _code()
    program = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(code) // 8, ctypes.addressof(code)))
    call("prctl", _SET_FILTER, ctypes.c_ulong(_FILTER), program)
