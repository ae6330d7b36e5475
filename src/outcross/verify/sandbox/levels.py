"""Isolation levels by their honest names, and how a sandbox of each is started.

*process*: another process with limits; a program can read and write what you can, and reach the network. *namespaces*: bubblewrap, with
no network, a read-only system without your files, and process ids, IPC and /tmp of its own; where the kernel allows nesting, every
program gets fresh ones inside a warm sandbox, else a sandbox of its own. *container by command*: whatever the command you gave
isolates, which nobody can check from here. A filter of system calls (seccomp) is added on x86-64 and ARM64.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any, Literal, get_args

Level = Literal["process", "namespaces", "container by command"]
LEVELS: tuple[Level, ...] = get_args(Level)

_INSIDE = "outcross.verify.sandbox.inside"
_MODULES = ("wire", "confine", "seccomp", "program", "keeper", "commands", "tester", "server")
_START = f"""\
import json, os, sys, types
def exactly(size):
    data = b""
    while len(data) < size:
        part = os.read(0, size - len(data))
        if not part: sys.exit(1)
        data += part
    return data
boot = json.loads(exactly(int.from_bytes(exactly(8), "big")))
parts = {_INSIDE!r}.split(".")
for end in range(1, len(parts) + 1):
    package = types.ModuleType(".".join(parts[:end]))
    package.__path__ = []
    sys.modules[package.__name__] = package
for name, source in boot["modules"]:
    module = types.ModuleType({_INSIDE!r} + "." + name)
    sys.modules[module.__name__] = module
    exec(compile(source, name + ".py", "exec"), module.__dict__)
module.serve(boot["options"])
"""


def boot(options: dict[str, Any]) -> bytes:
    """The first bytes that a sandbox reads: the sources of its server, and its options."""
    folder = Path(__file__).parent / "inside"
    modules = [[name, (folder / f"{name}.py").read_text(encoding="utf-8")] for name in _MODULES]
    body = json.dumps({"modules": modules, "options": options}).encode()
    return len(body).to_bytes(8, "big") + body


def command_line(level: Level, command: tuple[str, ...] = ()) -> list[str]:
    """The command that starts a sandbox's Python."""
    start = ["-P", "-s", "-S", "-c", _START]
    if level == "container by command":
        return [*command, *start]
    python = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
    if level == "process":
        return [python, *start]
    prefix = os.path.realpath(sys.base_prefix)
    if Path(prefix).is_relative_to("/usr"):
        return [*bubblewrap(), "--", python, *start]
    # elsewhere than at home: folders on the way to it may be closed to others, and their names are nobody's business
    return [*bubblewrap(), "--ro-bind", prefix, "/python", "--", str(Path("/python") / Path(python).relative_to(prefix)), *start]


def bubblewrap() -> list[str]:
    """The command line of bubblewrap, up to the command that it runs: a system without users, files of people, or a network."""
    line = ["bwrap", "--die-with-parent", "--new-session", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts"]
    line += ["--unshare-cgroup-try", "--clearenv", "--setenv", "PATH", "/usr/bin:/bin", "--setenv", "LANG", "C.UTF-8"]
    line += ["--setenv", "PYTHONHASHSEED", "0", "--ro-bind", "/usr", "/usr"]
    if os.geteuid() != 0:
        line += ["--unshare-user"]
    for name in ("/bin", "/sbin", "/lib", "/lib64"):
        folder = Path(name)
        if folder.is_symlink():
            line += ["--symlink", os.readlink(folder), name]  # noqa: PTH115
        elif folder.is_dir():
            line += ["--ro-bind", name, name]
    line += ["--perms", "0755", "--dir", "/etc", "--perms", "0755", "--dir", "/python"]
    line += ["--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache", "--ro-bind-try", "/etc/alternatives", "/etc/alternatives"]
    return [*line, "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--remount-ro", "/", "--chdir", "/"]
