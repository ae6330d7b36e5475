"""Programs in other languages through the same sandbox: right and wrong ones judged, hostile ones contained, the next one unaffected."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import context, sample

from outcross.errors import ConfigError
from outcross.types import Group, Score, Task
from outcross.verify.code import Code, request
from outcross.verify.sandbox.choice import best
from outcross.verify.sandbox.language import Language

LEVEL, WHY = best()
sandboxed = pytest.mark.skipif(LEVEL != "namespaces", reason=f"needs a sandbox: {WHY}; apt-get install bubblewrap, and user namespaces")
C = Language("c", "main.c", "{out}", "gcc -O1 -o {out} {file}")
SHELL = Language("sh", "main.sh", "sh {file}")
LANGUAGES = {
    "c": C,
    "sh": SHELL,
    "perl": Language("perl", "main.pl", "perl {file}"),
    "awk": Language("awk", "main.awk", "awk -f {file}"),
    "node": Language("node", "main.js", "node {file}"),
}
SUMS = {
    "c": '#include <stdio.h>\nint main(){int a,b;scanf("%d %d",&a,&b);printf("%d\\n",a+b);}',
    "sh": "read a b\necho $((a+b))",
    "perl": 'my ($a, $b) = split " ", <STDIN>; print $a+$b, "\\n";',
    "awk": "{print $1+$2}",
    "node": "const [a,b]=require('fs').readFileSync(0,'utf8').split(' ').map(Number);console.log(a+b)",
}
CASES = '[["1 2\\n", "3"], ["5 6\\n", "11\\n"]]'
HONEST = '#include <stdio.h>\nint main(){puts("owned?");}'
_C = '#define _GNU_SOURCE\n#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n#include <unistd.h>\n#include <signal.h>\n#include <errno.h>\n#include <sys/socket.h>\n#include <sys/ptrace.h>\n#include <netinet/in.h>\n#include <sys/mman.h>\n#include <sys/stat.h>\n#include <fcntl.h>\nint owned(int yes){puts(yes?"owned":"contained");return !yes;}\n'

# every one prints "owned" if what it tries works
HOSTILE_C = {
    "fork bomb": "int main(){for(int i=0;i<200;i++){int p=fork();if(p<0)return owned(0);if(!p)for(;;)pause();}return owned(1);}",
    "fork bomb without end": "int main(){for(;;)fork();}",
    "infinite loop": "int main(){for(volatile int i=0;;i++);}",
    "infinite loop deaf to signals": "int main(){for(int i=1;i<64;i++)signal(i,SIG_IGN);for(volatile int i=0;;i++);}",
    "sleep": "int main(){sleep(1000000);}",
    "memory": "int main(){for(long i=0;i<64;i++){char*p=malloc(1<<26);if(!p)return owned(0);memset(p,1,1<<26);}return owned(1);}",
    "shared memory": "int main(){return owned(memfd_create(\"x\",0)>=0);}",
    "stack": "int f(int n){volatile char x[1<<16];x[0]=n;return f(n+1)+x[0];}int main(){return f(0);}",
    "output flood": "int main(){for(;;)puts(\"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\");}",
    "write outside": "int main(){return owned(open(\"{file}\",O_WRONLY|O_CREAT,0600)>=0);}",
    "write to the system": "int main(){return owned(open(\"/usr/bin/planted\",O_WRONLY|O_CREAT,0600)>=0||open(\"/etc/planted\",O_WRONLY|O_CREAT,0600)>=0);}",
    "read the home folder": "int main(){return owned(open(\"{home}\",O_RDONLY)>=0);}",
    "read passwords": "int main(){return owned(open(\"/etc/shadow\",O_RDONLY)>=0);}",
    "huge file": "int main(){int f=open(\"x\",O_WRONLY|O_CREAT,0600);return owned(!ftruncate(f,1L<<40));}",
    "fill the disk": "int main(){static char b[1<<20];long n=0;for(int i=0;i<64;i++){char s[9];sprintf(s,\"%d\",i);int f=open(s,O_WRONLY|O_CREAT,0600);n+=write(f,b,1<<20)>0;}return owned(n==64);}",
    "network": "int main(){return owned(socket(AF_INET,SOCK_STREAM,0)>=0);}",
    "local socket": "int main(){return owned(socket(AF_UNIX,SOCK_STREAM,0)>=0);}",
    "raw socket": "int main(){return owned(socket(AF_INET,SOCK_RAW,1)>=0);}",
    "ptrace": "int main(){return owned(ptrace(PTRACE_SEIZE,getppid(),0,0)==0);}",
    "kill the parent": "int main(){kill(getppid(),SIGKILL);puts(\"still here\");}",
    "kill everything": "int main(){kill(-1,SIGKILL);return owned(kill({pid},0)==0);}",
    "become root": "int main(){return owned(!setuid(0));}",
    "new namespaces": "#include <sched.h>\nint main(){return owned(!unshare(CLONE_NEWUSER));}",
    "environment": "int main(){return owned(getenv(\"{variable}\")!=0);}",
    "left behind": "int main(){if(!fork()){setsid();if(!fork()){execl(\"/usr/bin/sleep\",\"sleep\",\"{marker}\",(char*)0);}_exit(0);}puts(\"left behind\");}",
    "output kept open": "int main(){puts(\"owned?\");fflush(stdout);if(!fork()){setsid();sleep(1000000);}}",
    "right output, then a crash": "int main(){puts(\"owned\");fflush(stdout);raise(SIGSEGV);}",
    "replaces itself": "int main(){unlink(\"program\");symlink(\"/bin/sh\",\"program\");puts(\"replaced\");}",
    "spoofs the supervisor": "int main(){for(int f=3;f<64;f++)write(f,\"\\0\\0\\0\\0\\0\\0\\0\\016[\\\"pass\\\",\\\"\\\",\\\"\\\"]\",22);puts(\"x\");}",
}  # fmt: skip
# what attacks the build
HOSTILE_BUILD = {
    "includes an endless file": '#include "/dev/zero"\nint main(){}',
    "includes passwords": '#include "/etc/shadow"\nint main(){}',
    "macros that double": "#define A x x\n#define B A A A A A A A A\n#define C B B B B B B B B\n#define D C C C C C C C C\n#define E D D D D D D D D\n#define F E E E E E E E E\n#define G F F F F F F F F\n#define H G G G G G G G G\nint main(){H H H H}",
    "huge binary": "char x[1<<30]={1};int main(){}",
    "includes itself": '#include "main.c"\n',
    "reads a terminal": '#include "/dev/stdin"\nint main(){puts("x");}',
}  # fmt: skip
HOSTILE_SHELL = {
    "fork bomb": "f() { f | f & }; f; wait", "delete everything": "rm -rf /* 2>/dev/null; [ -x /usr/bin/env ] || echo owned",
    "write outside": "echo x > {file} && echo owned", "network": "exec 3<>/dev/tcp/127.0.0.1/80 && echo owned", "endless output": "while :; do echo xxxxxxxx; done",
    "background": "sleep {marker} & echo left", "loop": "while :; do :; done", "signals": "kill -9 {pid} && echo owned; kill -9 1; echo still here",
}  # fmt: skip


def judged(language: Language, programs: list[str], cases: str, **limits: Any) -> list[Score]:
    made = tuple(map(sample, programs, range(len(programs))))
    (found,) = Code(language=language, **limits)(context(Path()), [Group(Task("t", "", columns=(("cases", cases),)), made)])
    return [item.scores[0] for item in found.samples]


# ── languages ──────────────────────────────────────────────────────────────────────────────────────────────────────────
@sandboxed
@pytest.mark.parametrize("name", LANGUAGES)
def test_right_programs_pass_and_wrong_ones_fail(name: str) -> None:
    words = (LANGUAGES[name].build or LANGUAGES[name].run).split()
    if not shutil.which(words[0], path="/usr/bin:/bin"):
        pytest.skip(f"{words[0]} is not in /usr/bin; apt-get install it")
    right, fenced = SUMS[name], f"Here it is:\n```{name}\n{SUMS[name]}\n```\n"
    wrong, broken = SUMS[name].replace("+", "-"), "}" + SUMS[name]
    limits = {"memory_mb": 8192, "processes": 32} if name == "node" else {}
    found = judged(LANGUAGES[name], [right, fenced, wrong, broken, ""], CASES, seconds=10, **limits)
    assert [item.verdict for item in found] == ["pass", "pass", "fail", "fail", "fail"]
    assert found[2].reason == "wrong output" and found[0].evidence.startswith("namespaces")


@sandboxed
def test_what_a_compiler_says_is_the_evidence() -> None:
    (found,) = judged(C, ["int main(){return nothing;}"], CASES)
    assert (found.verdict, found.reason) == ("fail", "the program does not compile") and "nothing" in found.evidence


def test_what_a_language_cannot_be_asked_is_said_before_anything_is_read() -> None:
    with pytest.raises(ConfigError, match=r"'no-such-compiler', which language 'x' needs, is not installed in .*apt-get install"):
        Code(language=Language("x", "m.x", "{out}", "no-such-compiler {file}"), minimum_level="process")(context(Path()), ())
    for fields, message in (
        ({"file": "../main.c"}, "give a bare name"), ({"file": ".."}, "give a bare name"), ({"run": ""}, "name a command"), ({"run": "a 'b"}, "cannot be split"),
        ({"build": "gcc {source}"}, "no places but"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=message):
            Language(**{"name": "c", "file": "main.c", "run": "{out}", **fields})
    asked = request(Task("t", "", columns=(("test", "assert f()"),)), "x", C)
    assert asked[:2] == ("error", "tests that call functions are for Python; other languages need cases")  # type: ignore[index]


def test_a_command_that_is_missing_in_a_container_is_an_error_and_no_failure() -> None:
    import sys

    verifier = Code(language=Language("x", "m.x", "no-such-tool {file}"), command=(sys.executable,), minimum_level="container by command")
    (found,) = verifier(context(Path()), [Group(Task("t", "", columns=(("cases", CASES),)), (sample("exit 127"),))])
    assert found.samples[0].scores[0].reason == "a command of the language is not in the sandbox"


@sandboxed
def test_canaries_are_judged_as_they_say_and_a_broken_compiler_is_seen() -> None:
    echo = Language("sh", "main.sh", "sh {file}", copies="cat")

    def kept(language: Language) -> list[bool]:
        verifier = Code(language=language)
        return [
            [judged(language, [canary.answers[0]], dict(canary.task.columns)["cases"])[0].verdict] == list(canary.expected)
            for canary in verifier.canaries
        ]  # type: ignore[list-item]

    assert kept(echo) == [True] * 3 and kept(SHELL) == [True]
    assert kept(Language("sh", "main.sh", "sh {file}", build="false", copies="cat"))[0] is False


# ── attacks ────────────────────────────────────────────────────────────────────────────────────────────────────────────
@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    folder = tmp_path_factory.mktemp("outside")
    (folder / "file").write_text("precious")
    os.environ["OUTCROSS_TEST_SECRET"] = "precious"
    yield {
        "file": str(folder / "file"),
        "home": str(Path.home()),
        "variable": "OUTCROSS_TEST_SECRET",
        "pid": str(os.getpid()),
        "marker": "987654322",
    }
    del os.environ["OUTCROSS_TEST_SECRET"]


def filled(program: str, world: dict[str, str]) -> str:
    for name, value in world.items():
        program = program.replace("{" + name + "}", value)
    return program


@sandboxed
@pytest.mark.parametrize(
    ("language", "attacks", "before", "honest"),
    [(C, HOSTILE_C, _C, HONEST), (C, HOSTILE_BUILD, "", HONEST), (SHELL, HOSTILE_SHELL, "", "echo owned?")],
    ids=["c", "builds", "sh"],
)
def test_hostile_programs_are_contained(
    language: Language, attacks: dict[str, str], before: str, honest: str, world: dict[str, str]
) -> None:
    """An attack whose output is "owned" would pass the first case; one that only lives on must not outlive its check."""
    if language is C and not shutil.which("gcc", path="/usr/bin:/bin"):
        pytest.skip("gcc is not in /usr/bin; apt-get install gcc")
    programs = [before + filled(program, world) for program in attacks.values()]
    limits = {"seconds": 1, "memory_mb": 512}
    found = judged(language, programs, '[["", "owned"], ["", "owned"]]', **limits)
    assert {name: item for name, item in zip(attacks, found, strict=True) if item.verdict not in ("fail", "error")} == {}
    assert all(item.reason and item.evidence.startswith("namespaces") for item in found)
    assert judged(language, [honest] * 3, '[["", "owned?"]]', seconds=5)[2].verdict == "pass"
    assert Path(world["file"]).read_text() == "precious" and len(list(Path(world["file"]).parent.iterdir())) == 1
    left = [entry.read_bytes() for entry in Path("/proc").glob("[0-9]*/cmdline") if os.access(entry, os.R_OK)]
    assert not [line for line in left if world["marker"].encode() in line and b"sleep" in line], "a program was left behind"
    assert socket.gethostname() and not Path("/usr/bin/planted").exists()
