"""Filters of system calls (seccomp, `man 2 seccomp`), built here: an allowed call is one that no rule names.

The kernel's BPF programs are small enough to be written by hand, and libseccomp is not everywhere. Numbers are those of
Linux's unistd tables; a call of another architecture, such as a 32-bit one, ends the process.
"""

from __future__ import annotations

import errno
import platform
import struct

_LOAD, _JUMP_EQUAL, _JUMP_NOT_LESS, _AND, _RETURN = 0x20, 0x15, 0x35, 0x54, 0x06
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_X32 = 0x40000000
_NEW_NAMESPACES = 0x7E020000  # CLONE_NEW*, from mounts to networks
_CLONE_THREAD = 0x10000
_WRITES = 0o3 | 0o100 | 0o1000  # O_WRONLY, O_RDWR, O_CREAT, O_TRUNC

_NONE = -1  # the architecture has no such call
_DENIED = {
    # of other processes
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272),
    "pidfd_getfd": (438, 438), "pidfd_open": (434, 434), "process_madvise": (440, 440),
    # of namespaces and file systems
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51), "unshare": (272, 97),
    "setns": (308, 268), "move_mount": (429, 429), "open_tree": (428, 428), "fsopen": (430, 430),
    "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433), "mount_setattr": (442, 442),
    "open_tree_attr": (467, 467), "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265),
    "fanotify_init": (300, 262), "quotactl": (179, 60), "quotactl_fd": (443, 443), "mknod": (133, _NONE),
    "mknodat": (259, 33),
    # of the kernel
    "keyctl": (250, 219), "add_key": (248, 217), "request_key": (249, 218), "bpf": (321, 280),
    "perf_event_open": (298, 241), "io_uring_setup": (425, 425), "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427), "userfaultfd": (323, 282), "init_module": (175, 105),
    "finit_module": (313, 273), "delete_module": (176, 106), "kexec_load": (246, 104),
    "kexec_file_load": (320, 294), "reboot": (169, 142), "swapon": (167, 224), "swapoff": (168, 225),
    "acct": (163, 89), "syslog": (103, 116), "iopl": (172, _NONE), "ioperm": (173, _NONE), "modify_ldt": (154, _NONE),
    "personality": (135, 92), "lookup_dcookie": (212, 18), "vhangup": (153, 58), "uselib": (134, _NONE),
    "mbind": (237, 235), "migrate_pages": (256, 238), "move_pages": (279, 239), "set_mempolicy": (238, 237),
    "lsm_set_self_attr": (459, 459), "sethostname": (170, 161), "setdomainname": (171, 162),
    # of the clock
    "settimeofday": (164, 170), "clock_settime": (227, 112), "clock_adjtime": (305, 266), "adjtimex": (159, 171),
    # of the network, of any family; socketpair, which reaches nobody, is what asyncio needs
    "socket": (41, 198), "bind": (49, 200), "listen": (50, 201), "connect": (42, 203),
    # memory that no process maps and no size limits
    "memfd_create": (319, 279), "memfd_secret": (447, 447), "shmget": (29, 194), "msgget": (68, 186),
    "semget": (64, 190), "mq_open": (240, 180), "vmsplice": (278, 75),
}  # fmt: skip
"""Call -> its number on x86_64 and on aarch64."""
_CLONE, _CLONE3, _IOCTL = (56, 220), (435, 435), (16, 29)
_TERMINAL = (0x5412, 0x541C)
"""TIOCSTI and TIOCLINUX, which type into a terminal."""

_DENIED_WEAK = {
    # what makes or changes files
    "creat": (85, _NONE), "truncate": (76, 45), "mkdir": (83, _NONE), "mkdirat": (258, 34), "rmdir": (84, _NONE),
    "unlink": (87, _NONE), "unlinkat": (263, 35), "rename": (82, _NONE), "renameat": (264, 38),
    "renameat2": (316, 276), "link": (86, _NONE), "linkat": (265, 37), "symlink": (88, _NONE), "symlinkat": (266, 36),
    "chmod": (90, _NONE), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452), "chown": (92, _NONE),
    "fchown": (93, 55), "lchown": (94, _NONE), "fchownat": (260, 54), "utime": (132, _NONE), "utimes": (235, _NONE),
    "utimensat": (280, 88), "futimesat": (261, _NONE), "setxattr": (188, 5), "lsetxattr": (189, 6),
    "fsetxattr": (190, 7), "removexattr": (197, 14), "lremovexattr": (198, 15), "fremovexattr": (199, 16),
    "setxattrat": (463, 463), "removexattrat": (466, 466), "file_setattr": (469, 469), "flock": (73, 32),
    # other processes of the same user, and processes at all
    "fork": (57, _NONE), "vfork": (58, _NONE), "execve": (59, 221), "execveat": (322, 281), "kill": (62, 129),
    "tkill": (200, 130), "tgkill": (234, 131), "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240),
    "pidfd_send_signal": (424, 424), "setpriority": (141, 140), "sched_setaffinity": (203, 122),
    "sched_setscheduler": (144, 119), "sched_setparam": (142, 118), "sched_setattr": (314, 274),
    "ioprio_set": (251, 30), "setpgid": (109, 154), "setsid": (112, 157),
}  # fmt: skip
_OPEN, _OPENAT, _OPENAT2, _PRLIMIT, _FCNTL = (2, _NONE), (257, 56), (437, 437), (302, 261), (72, 25)
_SIGNALLING = (6, 7, 8, 10, 15, 37, 38, 1024, 1026)
"""Of fcntl: locks, leases, and whom a descriptor sends which signal."""


def program(weak: bool = False, machine: str = "") -> bytes:
    """The filter as an array of `sock_filter`.

    Args:
        weak: for a process that shares files and processes with its user: it writes nothing, starts nothing but
            threads, and signals nobody.
        machine: as `platform.machine` has it; empty is this one's.

    Raises:
        OSError: an architecture whose calls are not known here.
    """
    machine = machine or platform.machine()
    if machine not in _AUDIT:
        raise OSError(f"no table of system calls for the architecture {machine!r}")
    column = list(_AUDIT).index(machine)
    code = [(_LOAD, 0, 0, 4), (_JUMP_EQUAL, 1, 0, _AUDIT[machine]), (_RETURN, 0, 0, _KILL), (_LOAD, 0, 0, 0)]
    if machine == "x86_64":
        code += [(_JUMP_NOT_LESS, 0, 1, _X32), (_RETURN, 0, 0, _KILL)]
    for numbers in (_DENIED | (_DENIED_WEAK if weak else {})).values():
        code += _refuse(numbers[column])
    code += _refuse(_CLONE3[column], errno.ENOSYS)  # flags behind a pointer cannot be seen; libraries then use clone
    code += _refuse_if(_CLONE[column], 0, _NEW_NAMESPACES, 0, equal=False)
    for request in _TERMINAL:
        code += _refuse_if(_IOCTL[column], 1, 0xFFFFFFFF, request)
    if weak:
        code += _refuse_if(_CLONE[column], 0, _CLONE_THREAD, 0)
        code += _refuse_if(_OPEN[column], 1, _WRITES, 0, equal=False)
        code += _refuse_if(_OPENAT[column], 2, _WRITES, 0, equal=False)
        code += _refuse(_OPENAT2[column], errno.ENOSYS)
        code += _refuse_if(_PRLIMIT[column], 0, 0xFFFFFFFF, 0, equal=False)
        for command in _SIGNALLING:
            code += _refuse_if(_FCNTL[column], 1, 0xFFFFFFFF, command)
        for request in (0x8901, 0x8902):  # FIOSETOWN, SIOCSPGRP
            code += _refuse_if(_IOCTL[column], 1, 0xFFFFFFFF, request)
    code.append((_RETURN, 0, 0, _ALLOW))
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code)


def _refuse(number: int, error: int = errno.EPERM) -> list[tuple[int, int, int, int]]:
    return [] if number == _NONE else [(_JUMP_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ERRNO | error)]


def _refuse_if(number: int, place: int, mask: int, value: int, equal: bool = True) -> list[tuple[int, int, int, int]]:
    """Where the lower half of the argument at `place`, under the mask, is the value, or is not."""
    if number == _NONE:
        return []
    test = (_JUMP_EQUAL, 0, 1, value) if equal else (_JUMP_EQUAL, 1, 0, value)
    return [
        (_JUMP_EQUAL, 0, 5, number),
        (_LOAD, 0, 0, 16 + 8 * place),
        (_AND, 0, 0, mask),
        test,
        (_RETURN, 0, 0, _ERRNO | errno.EPERM),
        (_LOAD, 0, 0, 0),
    ]
