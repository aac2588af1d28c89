"""Attempts by way of the network, of namespaces and of rarer system calls; see `attempts`."""

from __future__ import annotations

OF_THE_KERNEL = """
# network_to_the_host
return socket.create_connection(("127.0.0.1", H["port"]), timeout=1)
# sockets_of_every_family
got = []
for family in range(46):
    for kind in (1, 2, 3, 4, 5):
        try:
            got.append(socket.socket(family, kind).family)
        except OSError:
            pass
return got
# sockets_by_number
got = []
for family in (1, 2, 10, 16, 17, 38, 40):
    if (number := libc.syscall(41 if X86 else 198, family, 1, 0)) >= 0:
        got.append(number)
return got
# abstract_socket
return socket.socket(socket.AF_UNIX).connect("\\0" + H["abstract"]) or "connected"
# socket_file
return socket.socket(socket.AF_UNIX).connect(H["socket"]) or "connected"
# listen
server = socket.socket()
server.bind(("0.0.0.0", 0))
return server
# bind_a_pair
one, _ = socket.socketpair()
one.bind("\\0anything")
return "bound"
# packets
return socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 3)
# names
return socket.gethostbyname("localhost")
# mount
if libc.mount(b"tmpfs", b"/tmp", b"tmpfs", 0, None) == 0:
    return "mounted"
# remount
if libc.mount(None, b"/", None, 32 | 4096, None) == 0:
    open("/new", "w").write("x")
    return "remounted"
# unmount
if libc.umount2(os.path.dirname(os.__file__).encode(), 2) == 0:
    return "unmounted"
# new_mounts
return call(429, 429, -100, b"/", -100, b"/tmp", 0)
# pivot
return call(155, 41, b"/tmp", b"/tmp")
# user_namespace
if libc.unshare(0x10000000) == 0:
    return "a namespace of its own"
# mount_namespace
if libc.unshare(0x20000) == 0:
    return "a namespace of its own"
# clone_user_namespace
return call(56, 220, ctypes.c_ulong(0x10000000 | signal.SIGCHLD), None, None, None, None)
# clone3_user_namespace
flags = (ctypes.c_uint64 * 8)(0x10000000, 0, 0, 0, signal.SIGCHLD, 0, 0, 0)
return call(435, 435, flags, 64)
# enter_a_namespace
if libc.setns(os.open("/", os.O_RDONLY), 0) == 0:
    return "entered"
# keys
return call(248, 217, b"user", b"name", b"value", ctypes.c_size_t(5), -3)
# keys_of_the_session
return call(250, 219, 0, -3, 1)
# bpf
return call(321, 280, 0, ctypes.create_string_buffer(128), 128)
# performance_events
return call(298, 241, ctypes.create_string_buffer(b"\\0\\0\\0\\0\\x80", 128), 0, -1, -1, 0)
# io_uring
return call(425, 425, 8, ctypes.create_string_buffer(128))
# page_faults
return call(323, 282, 1)
# kernel_module
return call(175, 105, b"x", ctypes.c_ulong(1), b"")
# kernel_log
return call(103, 116, 3, ctypes.create_string_buffer(1000), 1000)
# reboot
return call(169, 142, 0xFEE1DEAD, 672274793, 0x89ABCDEF, None)
# clock
time.clock_settime(time.CLOCK_REALTIME, 0.0)
return "set"
# clock_by_adjtime
return call(159, 171, ctypes.create_string_buffer(b"\\1", 300))
# name_of_the_host
socket.sethostname("mine")
return "named"
# kernel_settings
open("/proc/sys/kernel/core_pattern", "w").write("|/tmp/x")
return "set"
# magic_keys
open("/proc/sysrq-trigger", "w").write("b")
return "pressed"
# personality
return call(135, 92, ctypes.c_ulong(0x0040000))
# memory_files
return os.memfd_create("x")
# shared_memory_segment
return call(29, 194, H["segment"], 1, 0)
# message_queue
return call(240, 180, b"x", os.O_CREAT | os.O_RDWR, 0o600, None)
# watch_files
return call(300, 262, 0, 0)
# calls_of_32_bits_mode
if X86:
    libc.syscall(ctypes.c_long(0x40000000 + 39))
    return "called"
# capabilities
head = (ctypes.c_uint32 * 2)(0x20080522, 0)
data = (ctypes.c_uint32 * 6)(*[0xFFFFFFFF] * 6)
if libc.capset(head, data) == 0:
    return "capable"
"""
