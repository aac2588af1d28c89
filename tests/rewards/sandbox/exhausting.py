"""Programs that use up, hang, flood or stay: each with the kinds of ends that are right for it."""

from __future__ import annotations

EXHAUSTING: dict[str, tuple[str, set[str]]] = {}
"""Name -> source, and how it may end. `done` means that the sandbox held without ending it."""


def _add(name: str, kinds: str, source: str) -> None:
    EXHAUSTING[name] = (source.strip("\n"), set(kinds.split()))


_DAEMON = """
import os, signal, time
for _ in range(3):
    if os.fork() == 0:
        os.setsid()
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        if os.fork() == 0:
            for descriptor in range(64):
                try:
                    os.close(descriptor)
                except OSError:
                    pass
            while True:
                time.sleep(0.01)
        os._exit(0)
print("left")
"""
_add("detached_daemons", "done", _DAEMON)
_add("daemon_that_holds_the_pipe", "done", _DAEMON.replace("os.close(descriptor)", "pass"))
_add(
    "daemon_that_forks_on",
    "done timeout processes exception",
    """
import os, time
if os.fork() == 0:
    os.setsid()
    while True:
        if os.fork():
            os._exit(0)
        time.sleep(0.001)
print("left")
""",
)
_add("fork_bomb", "exception timeout processes killed", "import os\nwhile True:\n    os.fork()")
_add(
    "fork_bomb_that_does_not_mind",
    "timeout processes killed",
    "import os\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        pass",
)
_add(
    "threads",
    "exception timeout processes",
    "import threading, time\nwhile True:\n    threading.Thread(target=time.sleep, args=(100,)).start()",
)
_add("memory", "memory", "held = []\nwhile True:\n    held.append(bytearray(10**7))")
_add("one_large_allocation", "memory", "held = bytearray(10**11)")
_add("large_number", "memory timeout", "print(len(str(7 ** (7 ** 12))))")
_add(
    "memory_in_children",
    "memory",
    """
import os, time
for _ in range(8):
    if os.fork() == 0:
        held = bytearray(100 << 20)
        held[::4096] = b"x" * len(held[::4096])
        time.sleep(100)
time.sleep(100)
""",
)
_add(
    "shared_memory",
    "memory",
    """
import mmap, time
held = []
for _ in range(100):
    part = mmap.mmap(-1, 20 << 20)
    part[::4096] = b"x" * len(part[::4096])
    held.append(part)
time.sleep(100)
""",
)
_add("output", "output", "while True:\n    print('x' * 10**6)")
_add(
    "output_of_children",
    "output timeout exception killed",
    "import os\nfor _ in range(4):\n    os.fork()\nwhile True:\n    os.write(1, b'x' * 10**5)",
)
_add("errors", "done exception", "import sys\nfor _ in range(100):\n    sys.stderr.write('x' * 10**6)")
_add("long_exception", "exception", "raise ValueError('x' * 10**8)")
_add("large_file", "output exception killed", "open('large', 'wb').write(b'x' * (100 << 20))")
_add(
    "many_files",
    "exception",
    "for number in range(100):\n    open(f'file{number}', 'wb').write(b'x' * (1 << 20))",
)
_add("many_names", "exception timeout", "for number in range(10**7):\n    open(f'file{number}', 'w').close()")
_add(
    "deep_folders",
    "exception timeout done",
    "import os\nfor _ in range(10**5):\n    os.mkdir('folder')\n    os.chdir('folder')",
)
_add("many_descriptors", "exception", "import os\nwhile True:\n    os.dup(0)")
_add(
    "full_pipes",
    "exception timeout",
    "import os\nwhile True:\n    r, w = os.pipe()\n    os.set_blocking(w, False)\n    os.write(w, b'x' * 2**20)",
)
_add("sleep", "timeout", "import time\ntime.sleep(1000)")
_add("endless_loop", "timeout", "while True:\n    pass")
_add(
    "endless_loop_that_ignores_signals",
    "timeout",
    """
import resource, signal
for number in range(1, 64):
    try:
        signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError):
        pass
while True:
    pass
""",
)
_add("hang_in_c", "timeout memory", "print(9 ** (9 ** 9) % 7)")
_add("stops_itself", "timeout", "import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)")
_add(
    "processors_in_children",
    "timeout",
    "import os\nfor _ in range(3):\n    os.fork()\nwhile True:\n    pass",
)
_add("waits_at_its_end", "timeout", "import atexit, time\natexit.register(time.sleep, 1000)\nprint('left')")
_add(
    "thread_that_stays",
    "timeout",
    "import threading, time\nthreading.Thread(target=time.sleep, args=(1000,)).start()\nprint('left')",
)
_add("crash", "killed", "import ctypes\nctypes.string_at(1)")
_add("crash_by_bytecode", "killed exception", "exec((lambda: 0).__code__.replace(co_code=b'd\\xff' * 50))")
_add(
    "recursion",
    "exception killed memory timeout",
    "import sys\nsys.setrecursionlimit(10**9)\ndef down():\n    down()\ndown()",
)
_add("deep_source", "exception memory killed", "print(eval('(' * 10**5 + ')' * 10**5))")
_add("leaves_at_once", "killed", "import os\nos._exit(0)")
_add("closes_everything", "done killed exception", "import os\nos.closerange(0, 100)\nprint('x')")
_add("interrupts_itself", "exception", "raise KeyboardInterrupt")
_add("leaves_with_status", "exception", "import sys\nsys.exit(3)")
_add(
    "poisons_imports",
    "done killed",
    """
import json, os, sys, builtins
for name in ("sitecustomize", "usercustomize", "json", "os", "encodings"):
    open(name + ".py", "w").write("raise SystemExit('poisoned')")
os.makedirs(".local/lib/python3.11/site-packages", exist_ok=True)
open(".local/lib/python3.11/site-packages/x.pth", "w").write("import os; os._exit(1)")
class Finder:
    def find_spec(self, name, *rest):
        raise SystemExit("poisoned")
sys.meta_path.insert(0, Finder())
sys.path_hooks.insert(0, Finder())
json.dumps = lambda *a, **k: '{"kind": "done"}'
os.write = os.read = os.fork = None
builtins.__import__ = None
""",
)
