"""What a filter answers to a call, by a small machine for its program, for both architectures."""

from __future__ import annotations

import errno
import struct

import pytest

from rewards.sandbox import seccomp


def simulated(program: bytes, audit: int, number: int, *arguments: int) -> int:
    """What the kernel answers to a call under a filter."""
    data = struct.pack("<IIQ6Q", number, audit, 0, *[*arguments, *[0] * 6][:6])
    code_ = [struct.unpack_from("=HBBI", program, 8 * place) for place in range(len(program) // 8)]
    place = accumulator = 0
    while True:
        operation, yes, no, value = code_[place]
        place += 1
        if operation == 0x20:
            accumulator = struct.unpack_from("<I", data, value)[0]
        elif operation == 0x54:
            accumulator &= value
        elif operation == 0x06:
            return value
        else:
            met = accumulator == value if operation == 0x15 else accumulator >= value
            place += yes if met else no


ALLOW, REFUSED, KILL = 0x7FFF0000, 0x00050000 | errno.EPERM, 0x80000000
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}


@pytest.mark.parametrize("machine", ARCHITECTURES)
class TestSeccomp:
    @staticmethod
    def answers(machine: str, weak: bool, numbers: tuple[int, int], *arguments: int) -> int:
        number = numbers[list(ARCHITECTURES).index(machine)]
        return simulated(seccomp.program(weak, machine), ARCHITECTURES[machine], number, *arguments)

    def test_what_is_named_is_refused_and_the_rest_allowed(self, machine):
        column = list(ARCHITECTURES).index(machine)
        for weak, denied in ((False, seccomp._DENIED), (True, seccomp._DENIED | seccomp._DENIED_WEAK)):
            for name, numbers in denied.items():
                if numbers[column] >= 0:
                    assert self.answers(machine, weak, numbers) == REFUSED, name
        for numbers in ((0, 63), (1, 64), (9, 222), (39, 172), (53, 199), (59, 221), (257, 56), (231, 94), (117, 147)):
            assert self.answers(machine, False, numbers) == ALLOW, numbers

    def test_clones_make_processes_and_threads_but_no_namespaces(self, machine):
        clone = (56, 220)
        assert self.answers(machine, False, clone, 17) == ALLOW
        assert self.answers(machine, False, clone, 0x3D0F00) == ALLOW
        assert self.answers(machine, False, clone, 0x10000011) == REFUSED
        assert self.answers(machine, False, (435, 435)) == 0x00050000 | errno.ENOSYS
        assert self.answers(machine, True, clone, 17) == REFUSED
        assert self.answers(machine, True, clone, 0x3D0F00) == ALLOW

    def test_without_namespaces_files_are_opened_for_reading_alone(self, machine):
        for flags in (0o1, 0o2, 0o100, 0o1000, 0o1101):
            assert self.answers(machine, True, (257, 56), 0, 0, flags) == REFUSED
            assert self.answers(machine, False, (257, 56), 0, 0, flags) == ALLOW
        assert self.answers(machine, True, (257, 56), 0, 0, 0o2000000) == ALLOW

    def test_terminals_owners_and_limits_of_others(self, machine):
        assert self.answers(machine, False, (16, 29), 0, 0x5412) == REFUSED
        assert self.answers(machine, False, (16, 29), 0, 0x5413) == ALLOW
        assert self.answers(machine, True, (72, 25), 0, 8) == REFUSED
        assert self.answers(machine, True, (72, 25), 0, 3) == ALLOW
        assert self.answers(machine, True, (302, 261), 4321) == REFUSED
        assert self.answers(machine, True, (302, 261), 0) == ALLOW

    def test_other_architectures_end_the_process(self, machine):
        assert simulated(seccomp.program(machine=machine), 0x40000003, 1) == KILL
        if machine == "x86_64":
            assert simulated(seccomp.program(machine=machine), ARCHITECTURES[machine], 0x40000001) == KILL


def test_an_unknown_architecture_has_no_filter():
    with pytest.raises(OSError, match="no table"):
        seccomp.program(machine="s390x")
