"""Programs that try to get out of a sandbox, one a block: what they return, if it is anything, was got out of it.

`H` names what there is outside: paths, ports and processes, never what they hold, which begins with `canary-`.
"""

from __future__ import annotations

import re
import textwrap

from tests.rewards.sandbox.attempts_on_the_kernel import OF_THE_KERNEL

WRAPPED = """
import ctypes, errno, os, resource, signal, socket, stat, subprocess, sys, threading, time
H = {host!r}
libc = ctypes.CDLL(None, use_errno=True)
X86 = os.uname().machine == "x86_64"
def call(x86, arm, *arguments):
    done = libc.syscall(ctypes.c_long(x86 if X86 else arm), *arguments)
    if done < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return [done]  # also of descriptor 0
def attempt():
{body}
try:
    got = attempt()
    print("held, it got nothing" if not got else "ESCAPED " + repr(got)[:2000])
except BaseException as error:
    print("held,", type(error).__name__, str(error)[:200])
"""

_OF_FILES = """
# read_secret
return open(H["secret"]).read()
# read_home
return [name for name in os.listdir(H["home"]) if name not in sys.executable.split("/")]
# read_checkout
return [name for name in os.listdir(H["checkout"]) if name not in sys.executable.split("/")]
# read_shadow
return open("/etc/shadow").read()
# read_passwd
return open("/etc/passwd").read()
# see_temporary_files
return os.path.exists(H["watched"]) or [name for name in os.listdir("/tmp")]
# find_canaries_anywhere
found = []
for folder, _, names in os.walk("/"):
    if folder.startswith(("/usr", "/proc", sys.base_prefix)):
        continue
    for name in names:
        try:
            if os.path.isfile(folder + "/" + name) and b"canary-" in open(folder + "/" + name, "rb").read(10**6):
                found.append(folder + "/" + name)
        except OSError:
            pass
return found
# write_outside
open(H["watched"] + "/new", "w").write("x")
return "wrote"
# write_over_secret
open(H["secret"], "w").write("x")
return "wrote"
# write_standard_library
open(os.__file__, "a").write("x = 1")
return "wrote"
# write_compiled_library
folder = os.path.dirname(os.__file__) + "/__pycache__/"
open(folder + os.listdir(folder)[0], "ab").write(b"x")
return "wrote"
# write_interpreter
open(sys.executable, "ab").write(b"x")
return "wrote"
# write_sitecustomize
open(os.path.dirname(os.__file__) + "/site-packages/sitecustomize.py", "w").write("x = 1")
return "wrote"
# write_root
open("/new", "w").write("x")
return "wrote"
# write_devices
open("/dev/new", "w").write("x")
return "wrote"
# write_libraries
open("/usr/lib/new.so", "w").write("x")
return "wrote"
# write_preload
open("/etc/ld.so.preload", "w").write("x")
return "wrote"
# write_harness
open("/harness/inside/harness.py", "a").write("x = 1")
return "wrote"
# delete_library
os.unlink(os.__file__)
return "deleted"
# rename_library
os.rename(os.__file__, os.__file__ + "x")
return "renamed"
# chmod_library
os.chmod(os.__file__, 0o777)
return "changed"
# symlink_to_secret
os.symlink(H["secret"], "link")
return open("link").read()
# symlink_over_watched
os.symlink(H["watched"], "folder")
open("folder/new", "w").write("x")
return "wrote"
# hard_link_of_library
os.link(os.__file__, "hard")
open("hard", "a").write("x = 1")
return "wrote"
# hard_link_of_secret
os.link(H["secret"], "hard")
return open("hard").read()
# dots_upwards
return open("../../../../../../.." + H["secret"]).read()
# move_to_root_by_descriptor
here = os.open("/", os.O_RDONLY)
os.chdir("/tmp")
for _ in range(50):
    os.chdir("..")
os.fchdir(here)
return open("." + H["secret"]).read()
# chroot_out
os.mkdir("jail")
os.chroot("jail")
return "changed root"
# device_node
os.mknod("disk", stat.S_IFBLK | 0o600, os.makedev(254, 0))
return open("disk", "rb").read(512)
# devices_of_the_host
found = []
for name in ("mem", "kmem", "kmsg", "port", "tty", "ptmx", "vda", "sda", "console", "fuse", "kvm", "net/tun", "shm"):
    try:
        found.append(os.open("/dev/" + name, os.O_RDONLY))
    except OSError:
        pass
return found
# fifo_of_the_host
os.close(os.open(H["fifo"], os.O_WRONLY | os.O_NONBLOCK))
return "opened"
# fifo_of_its_own
os.mkfifo("fifo")
return open("fifo").read()
# handle_of_a_file
handle = ctypes.create_string_buffer(b"\\x80" + b"\\0" * 200)
mount = ctypes.c_int()
return call(303, 264, -100, H["secret"].encode(), handle, ctypes.byref(mount), 0)
# open_by_handle
return call(304, 265, -100, ctypes.create_string_buffer(b"\\x08\\0\\0\\0\\1\\0\\0\\0\\2" + b"\\0" * 20), 0)
# shared_memory_file
return open(H["shm"]).read()
# system_folders
return os.listdir("/sys")
# control_groups
return os.listdir("/sys/fs/cgroup")
# setuid_programs
for name in ("su", "sudo", "mount", "passwd", "newuidmap", "ping"):
    for folder in ("/bin/", "/usr/bin/", "/sbin/"):
        if os.path.exists(folder + name):
            return folder + name
"""

_OF_PROCESSES = """
# environment
return [value for value in os.environ.values() if "canary-" in value]
# process_folder
return [name for name in os.listdir("/proc") if name.isdigit()]
# environment_of_the_caller
return open(f"/proc/{H['process']}/environ", "rb").read()
# environment_of_parents
found = b""
for process in {os.getppid(), 1, 2}:
    try:
        found += open(f"/proc/{process}/environ", "rb").read()
    except OSError:
        pass
return found if b"canary-" in found else None
# root_of_the_first_process
return open("/proc/1/root" + H["secret"]).read()
# memory_of_the_caller
memory = open(f"/proc/{H['process']}/mem", "rb")
return memory
# descriptors_of_the_harness
found = []
for number in range(64):
    try:
        found.append(open(f"/proc/{os.getppid()}/fd/{number}", "rb").read(100))
    except OSError:
        pass
return found
# inherited_descriptors
found = []
for number in range(3, 1024):
    try:
        os.set_blocking(number, False)
        found.append(os.read(number, 10**6))
    except OSError:
        pass
    try:
        found.append(os.pread(number, 10**6, 0))
    except OSError:
        pass
return [each for each in found if b"canary-" in each or b"expected" in each]
# inherited_folders
for number in range(3, 64):
    try:
        os.fchdir(number)
        return os.listdir(".")
    except OSError:
        pass
# report_by_descriptor
for number in range(3, 64):
    try:
        os.write(number, b'{"kind": "done", "text": "", "answer": "ESCAPED by report"}\\n' * 3)
    except OSError:
        pass
# kill_the_caller
os.kill(H["process"], signal.SIGTERM)
return "signalled"
# stop_the_caller
os.kill(H["process"], signal.SIGSTOP)
return "stopped"
# kill_everybody
os.kill(-1, signal.SIGKILL)
# kill_the_first
os.kill(1, signal.SIGKILL)
time.sleep(0.2)
# kill_the_harness
os.kill(os.getppid(), signal.SIGKILL)
# stop_the_harness
os.kill(os.getppid(), signal.SIGSTOP)
# kill_its_group
os.killpg(0, signal.SIGKILL)
# trace_the_harness
if libc.ptrace(16, os.getppid(), 0, 0) == 0:
    return "attached"
# seize_the_harness
if libc.ptrace(0x4206, os.getppid(), 0, 0) == 0:
    return "seized"
# trace_itself
if libc.ptrace(0, 0, 0, 0) == 0:
    return "traced"
# memory_of_the_harness
local = ctypes.create_string_buffer(100)
class Part(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]
mine = Part(ctypes.cast(local, ctypes.c_void_p), 100)
there = Part(0x10000, 100)
return call(310, 270, os.getppid(), ctypes.byref(mine), 1, ctypes.byref(there), 1, 0)
# descriptor_by_pidfd
return call(438, 438, os.pidfd_open(os.getppid()), 3, 0)
# pidfd_of_the_caller
signal.pidfd_send_signal(os.pidfd_open(H["process"]), signal.SIGTERM)
return "signalled"
# become_root
os.setuid(0)
if os.getuid() == 0 and H["plain"] is False:
    return "root"
# become_the_caller
os.setresuid(*[H["uid"]] * 3)
return open(H["secret"]).read()
# groups
os.setgroups([0, 4, 6, 27])
return os.getgroups()
# limits_of_the_caller
resource.prlimit(H["process"], resource.RLIMIT_CPU, (1, 1))
return "limited"
# raise_limits
got = []
for name in ("NOFILE", "FSIZE", "CORE", "MEMLOCK", "CPU", "DATA", "NPROC"):
    what = getattr(resource, "RLIMIT_" + name)
    hard = resource.getrlimit(what)[1]
    try:
        resource.setrlimit(what, (hard + 1, hard + 1) if hard >= 0 else (1, 1))
        got.append(name)
    except (ValueError, OSError):
        pass
return got
# priority
os.setpriority(os.PRIO_PROCESS, 0, -20)
return "raised"
# real_time
os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
return "real time"
# run_an_interpreter
code = "import os; print(open(%r).read())" % H["secret"]
return subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE).stdout
# run_a_shell
return subprocess.run(["/bin/sh", "-c", "cat " + H["secret"]], stdout=subprocess.PIPE).stdout
# terminal_input
import fcntl
for number in (0, 1, 2):
    try:
        fcntl.ioctl(number, 0x5412, b"x")
        return "typed"
    except OSError:
        pass
# controlling_terminal
return os.ctermid() and os.open("/dev/tty", os.O_RDWR)
# hidden_tests_in_memory
import gc
texts = {str(each) for each in gc.get_objects() if isinstance(each, (dict, list, tuple)) and len(str(each)) < 10**5}
frame = sys._getframe()
while frame:
    texts.add(str(frame.f_locals))
    frame = frame.f_back
return [text for text in texts if "expected-of-" in text and "texts" not in text]
"""

_MARK = re.compile(r"^# (\w+)\n", re.M)


def blocks(text: str) -> dict[str, str]:
    """Name -> what stands below it."""
    parts = _MARK.split(text)
    return dict(zip(parts[1::2], (part.strip("\n") for part in parts[2::2]), strict=True))


ATTEMPTS = blocks(_OF_FILES) | blocks(_OF_PROCESSES) | blocks(OF_THE_KERNEL)


def program(body: str, host: dict[str, object]) -> str:
    """The source of one attempt."""
    return WRAPPED.format(host=host, body=textwrap.indent(body, "    "))
