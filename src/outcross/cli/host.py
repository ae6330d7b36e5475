"""How much memory this machine has."""

from __future__ import annotations

from pathlib import Path

MEMINFO, CGROUP = Path("/proc/meminfo"), Path("/sys/fs/cgroup")


def host_memory() -> tuple[int, int] | None:
    """Bytes that are free and that there are, a container's limit counted; None where nobody knows, outside of Linux."""
    try:
        lines = MEMINFO.read_text(encoding="ascii").splitlines()
        sizes = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines}
        free, total = sizes["MemAvailable"], sizes["MemTotal"]
    except (OSError, KeyError, ValueError, IndexError):
        return None
    try:
        limit, used = (int((CGROUP / name).read_text(encoding="ascii")) for name in ("memory.max", "memory.current"))
    except (OSError, ValueError):  # no container, another kind, or one without a limit ("max")
        return free, total
    return min(free, max(0, limit - used)), min(total, limit)
