"""What a process asks of the kernel for itself, by prctl(2)."""

from __future__ import annotations

import ctypes
import os

_NO_NEW_PRIVILEGES, _DUMPABLE, _SECCOMP, _FILTER = 38, 4, 22, 2


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def prctl(option: int, *arguments: int | ctypes.c_void_p) -> None:
    given = [each if isinstance(each, ctypes.c_void_p) else ctypes.c_ulong(each) for each in arguments]
    given += [ctypes.c_ulong(0)] * (4 - len(given))
    if ctypes.CDLL(None, use_errno=True).prctl(option, *given):
        raise OSError(ctypes.get_errno(), f"prctl {option}: {os.strerror(ctypes.get_errno())}")


def filter_calls(program: bytes) -> None:
    """Install a filter of system calls, for good and for all that is started from here."""
    held = ctypes.create_string_buffer(program, len(program))
    of_kernel = _Program(len(program) // 8, ctypes.cast(held, ctypes.c_void_p))
    prctl(_NO_NEW_PRIVILEGES, 1)
    prctl(_SECCOMP, _FILTER, ctypes.cast(ctypes.pointer(of_kernel), ctypes.c_void_p))


def hide() -> None:
    """From other processes of the same user: no memory, no descriptors, no trace."""
    prctl(_DUMPABLE, 0)
