"""Hostile programs. Those of `ESCAPES` return "owned" if what they try works, and the test asks for just that; those of `FORGERIES`
try to pass a test whose answer they cannot know; those of `SCRIPTS` attack a check by input and output."""

from __future__ import annotations

import textwrap

_SYSTEM = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
"""


def _body(text: str, before: str = "") -> str:
    return before + "def f(info):\n" + textwrap.indent(textwrap.dedent(text).strip(), "    ") + "\n"


def _socket(family: str, kind: str = "SOCK_STREAM") -> str:
    return _body(f"import socket\nsocket.socket(getattr(socket, {family!r}), socket.{kind})\nreturn 'owned'")


def _call(line: str) -> str:
    return _body(f"return 'owned' if {line} >= 0 else 'contained'", _SYSTEM)


ESCAPES: dict[str, str] = {
    "fork bomb": _body("""
        import os
        made = 0
        while made < 100:
            if os.fork() == 0:
                while True: pass
            made += 1
        return "owned" """),
    "fork bomb while imported": "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass\n",
    "thread bomb": _body("""
        import threading
        for _ in range(100): threading.Thread(target=threading.Event().wait, daemon=True).start()
        return "owned" """),
    "memory bomb": _body("held = [bytearray(2**26) for _ in range(100)]\nreturn 'owned'"),
    "memory bomb by multiplication": _body("text = 'x' * 10**11\nreturn 'owned'"),
    "memory by shared segments": _call("libc.shmget(0, 2**27, 0o1777)"),
    "memory by memfd": _call("libc.memfd_create(b'x', 0)"),
    "infinite loop": _body("while True: pass"),
    "infinite loop that ignores signals": _body("""
        import signal
        for number in range(1, 64):
            try: signal.signal(number, signal.SIG_IGN)
            except (OSError, ValueError): pass
        while True: pass"""),
    "sleeps for ever": _body("import time\ntime.sleep(10**6)"),
    "huge power": _body("return 10 ** 10 ** 10"),
    "catastrophic pattern": _body("import re\nre.match(r'(a+)+$', 'a' * 64 + 'b')\nreturn 'owned?'"),
    "output flood": _body("while True: print('x' * 2**16)"),
    "huge answer": _body("return 'x' * 10**8"),
    "huge integer answer": _body("return 1 << 10**9"),
    "deep answer": _body("answer = []\nfor _ in range(10**5): answer = [answer]\nreturn answer"),
    "circular answer": _body("answer = []\nanswer.append(answer)\nreturn answer"),
    "endless answer": _body("import itertools\nreturn itertools.count()"),
    "deep recursion": _body("import sys\nsys.setrecursionlimit(10**9)\ndef g(): return g()\ng()"),
    "write outside": _body("open(info['file'], 'w').write('x')\nreturn 'owned'"),
    "write to the system": _body("""
        for folder in ("/", "/usr", "/usr/bin", "/python", "/etc", "/lib", "/dev"):
            try: open(folder + "/planted", "w")
            except OSError: continue
            return "owned"
        return "contained" """),
    "fill the disk": _body("""
        held = 0
        for number in range(64):
            with open(f"/tmp/{number}", "wb") as file: held += file.write(bytes(2**22))
        return "owned" """),
    "huge sparse file": _body("open('/tmp/x', 'wb').truncate(10**12)\nreturn 'owned'"),
    "read the home folder": _body("import os\nreturn 'owned' if os.listdir(info['home']) else 'contained'"),
    "read the project": _body("return 'owned' if open(info['source']).read() else 'contained'"),
    "read the environment": _body("import os\nreturn 'owned' if info['variable'] in os.environ else 'contained'"),
    "read users": _body("return 'owned' if open('/etc/shadow').read() or open('/etc/passwd').read() else ''"),
    "environment of process 1": _body("return 'owned' if open('/proc/1/environ').read() else 'contained'"),
    "memory of process 1": _body("open('/proc/1/mem', 'r+b')\nreturn 'owned'"),
    "list processes": _body("import os\nreturn 'owned' if os.listdir('/proc') else 'contained'"),
    "reach out through /proc": _body("import os\nreturn 'owned' if os.listdir('/proc/1/root') else 'contained'"),
    "network: connect": _body("import socket\nsocket.create_connection(('127.0.0.1', info['port']), 1)\nreturn 'owned'"),
    "network: datagram": _body("""
        import socket
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", info["port"]))
        return "owned" """),
    "network: raw": _socket("AF_INET", "SOCK_RAW"),
    "network: IPv6": _socket("AF_INET6"),
    "network: local": _socket("AF_UNIX"),
    "network: netlink": _socket("AF_NETLINK", "SOCK_RAW"),
    "network: packet": _socket("AF_PACKET", "SOCK_RAW"),
    "network: kernel crypto": _socket("AF_ALG", "SOCK_SEQPACKET"),
    "network: virtual machine": _socket("AF_VSOCK"),
    "network: names": _body("import socket\nsocket.getaddrinfo('example.com', 80)\nreturn 'owned'"),
    "signal to the checker": _body("import os\nos.kill(info['pid'], 0)\nreturn 'owned'"),
    "kill the parent": _body("import os, signal\nos.kill(os.getppid(), signal.SIGKILL)\nreturn 'still here'"),
    "kill everything": _body("import os, signal\nos.kill(-1, signal.SIGKILL)\nreturn 'still here'"),
    "kill itself": _body("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)"),
    "ptrace": _call("libc.ptrace(16, os.getppid(), 0, 0)"),
    "read another's memory": _call("libc.syscall(310, os.getppid(), 0, 0, 0, 0, 0)"),
    "symbolic link": _body("import os\nos.symlink(info['file'], '/tmp/x')\nopen('/tmp/x', 'a').write('x')\nreturn 'owned'"),
    "hard link": _body("import os\nos.link('/usr/bin/env', '/tmp/x')\nreturn 'owned'"),
    "path with dots": _body("open('/tmp/../../..' + info['file'], 'a').write('x')\nreturn 'owned'"),
    "mount": _call("libc.mount(b'none', b'/tmp', b'tmpfs', 0, None)"),
    "unmount /proc": _call("libc.umount2(b'/proc', 2)"),
    "unshare": _call("libc.unshare(0x10000000)"),
    "clone into namespaces": _call("libc.syscall(56, 0x10000011, 0, 0, 0, 0)"),
    "chroot": _call("libc.chroot(b'/tmp')"),
    "become root": _call("libc.setuid(0)"),
    "make a device": _body("import os, stat\nos.mknod('/tmp/x', stat.S_IFBLK | 0o600, os.makedev(254, 0))\nreturn 'owned'"),
    "open devices": _body("""
        for name in ("mem", "kmsg", "vda", "sda", "nvme0n1", "kvm", "fuse"):
            try: open(f"/dev/{name}", "rb").read(1)
            except OSError: continue
            return "owned"
        return "contained" """),
    "terminal": _body("import fcntl, termios\nfcntl.ioctl(open('/dev/tty'), termios.TIOCSTI, b'x')\nreturn 'owned'"),
    "io_uring": _call("libc.syscall(425, 8, ctypes.create_string_buffer(256))"),
    "bpf": _call("libc.syscall(321, 0, ctypes.create_string_buffer(128), 128)"),
    "userfaultfd": _call("libc.syscall(323, 1)"),
    "kernel keys": _call("libc.syscall(250, 0, -3, 1, 0, 0)"),
    "raise its limits": _body("""
        import resource
        resource.setrlimit(resource.RLIMIT_CPU, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        return "owned" """),
    "outlive its parent": _call("libc.prctl(1, 0, 0, 0, 0)"),
    "double fork": _body("""
        import os
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0: os.execv("/usr/bin/sleep", ["sleep", info["marker"]])
            os._exit(0)
        return "left behind" """),
    "threads left behind": _body("""
        import threading
        def loop():
            while True: pass
        for _ in range(3): threading.Thread(target=loop).start()
        return "left behind" """),
}  # fmt: skip

FORGERIES: dict[str, str] = {
    "exit before the tests": "import os\nos._exit(0)\n",
    "exit in the call": "import os\ndef f(x): os._exit(0)\n",
    "sys.exit before the tests": "import sys\nsys.exit(0)\n",
    "sys.exit in the call": "import sys\ndef f(x): sys.exit(0)\n",
    "prints a verdict": 'def f(x): print(\'["pass", "", ""]\'); print("OK"); print(7919); return None\n',
    "equals everything": "class A:\n    def __eq__(self, other): return True\n    __hash__ = None\ndef f(x): return A()\n",
    "number that equals everything": "class A(int):\n    def __eq__(self, other): return True\ndef f(x): return A(1)\n",
    "number that lies about itself": "class A(int):\n    def __int__(self): return 7919\n    __index__ = __int__\ndef f(x): return A(1)\n",
    "text that equals everything": "class A(str):\n    def __eq__(self, other): return True\ndef f(x): return A('x')\n",
    "list that equals everything": "class A(list):\n    def __eq__(self, other): return True\ndef f(x): return A()\n",
    "class that claims another": "class A:\n    __class__ = int\n    def __eq__(self, other): return True\ndef f(x): return A()\n",
    "pickle in the answer": "import os\nclass A:\n    def __reduce__(self): return os._exit, (0,)\ndef f(x): return A()\n",
    "pickle bytes": "import pickle, os\nclass A:\n    def __reduce__(self): return os._exit, (0,)\ndef f(x): return pickle.dumps(A())\n",
    "own check": "def check(candidate): return None\ndef f(x): return 0\n",
    "own assertions": "import builtins\nclass A(Exception): pass\nbuiltins.AssertionError = A\ndef f(x): raise AssertionError('passed')\n",
    "replaced builtins": "import builtins\nbuiltins.abs = lambda x: 0\nbuiltins.isinstance = lambda *a: True\ndef f(x): return 0\n",
    "replaced isclose": "import math\nmath.isclose = lambda *a, **k: True\ndef f(x): return 0\n",
    "trace function": "import sys\ndef g(frame, event, arg):\n    frame.f_locals['passed'] = True\n    return g\nsys.settrace(g)\ndef f(x): return 0\n",
    "import hook": "import sys\nclass A:\n    def find_spec(self, *a): return None\nsys.meta_path[:] = [A()]\nsys.modules.clear()\ndef f(x): return 0\n",
    "exception hook": "import sys, os\nsys.excepthook = lambda *a: os._exit(0)\ndef f(x): raise ValueError\n",
    "at exit": "import atexit, os\natexit.register(os._exit, 0)\ndef f(x): return 0\n",
    "searches its memory": (
        "import gc\ndef f(x):\n    found = [i for o in gc.get_objects() if isinstance(o, (list, tuple, dict)) for i in o if isinstance(i, int)]\n"
        "    texts = [o for o in gc.get_objects() if isinstance(o, str) and 'hidden_' in o]\n    return texts and texts[0] or found[:1]\n"
    ),
    "searches the frames": "import sys\ndef f(x):\n    frame, seen = sys._getframe(), []\n    while frame:\n        seen += [v for v in frame.f_locals.values() if isinstance(v, int) and v > 7000]\n        frame = frame.f_back\n    return seen[0] if seen else 0\n",
    "writes to every descriptor": (
        "import os, json\nbody = json.dumps(['pass', '', '']).encode()\nfor fd in range(3, 64):\n"
        "    try: os.write(fd, len(body).to_bytes(8, 'big') + body)\n    except OSError: pass\ndef f(x): return 0\n"
    ),
    "closes every descriptor": "import os\nos.closerange(0, 64)\ndef f(x): return 0\n",
    "drains every descriptor": "import os\ndef f(x):\n    for fd in range(3, 64):\n        try: os.set_blocking(fd, False); os.read(fd, 9999)\n        except OSError: pass\n    return 0\n",
    "answers with garbage": "import os\nfor fd in range(3, 64):\n    try: os.write(fd, b'\\xff' * 64)\n    except OSError: pass\ndef f(x): return 0\n",
    "answers out of turn": (
        "import os, json\nbody = json.dumps({'value': True, 'changed': {'0': 'x', '9': 1}}).encode()\nfor fd in range(3, 64):\n"
        "    try: os.write(fd, len(body).to_bytes(8, 'big') + body)\n    except OSError: pass\ndef f(x): return 0\n"
    ),
    "raises what ends processes": "def f(x): raise KeyboardInterrupt\n",
    "raises an exception without a text": "class A(Exception):\n    def __str__(self): raise SystemExit(0)\ndef f(x): raise A\n",
    "does not compile": "def f(x) return 7919\n",
    "too deep to compile": "x = " + "(" * 5000 + ")" * 5000 + "\n",
    "null bytes": "def f(x): return 0\0\n",
    "surrogates": "def f(x): return '\\ud800' * 10\n",
    "code is a comment": "# assert True\n",
    "empty": "",
}

SCRIPTS: dict[str, str] = {
    "output flood": "while True: print('x' * 2**16)",
    "output kept open by a child": "import os, time\nprint(1, flush=True)\nif os.fork() == 0:\n    os.setsid(); time.sleep(10**6)\n",
    "error flood": "import sys\nwhile True: sys.stderr.write('x' * 2**16)",
    "exit without output": "import os\nos._exit(0)",
    "right output, then a failure": "print(42)\nraise SystemExit(3)",
    "right output, then a signal": "import os, signal\nprint(42, flush=True)\nos.kill(os.getpid(), signal.SIGSEGV)",
    "closes its output and sleeps": "import os, time\nos.close(1)\ntime.sleep(10**6)",
    "reads for ever": "while True: input()",
    "keeps answers for the next case": "import os\ntry: print(open('/tmp/kept').read())\nexcept OSError: open('/tmp/kept', 'w').write(input())",
}
