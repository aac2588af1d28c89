"""Nothing gets out of a sandbox, nothing in it lasts, and who made it is unharmed: as root and as a plain user."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest

from tests.rewards.sandbox import host
from tests.rewards.sandbox.attempts import ATTEMPTS
from tests.rewards.sandbox.exhausting import EXHAUSTING

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]
STRONG = ("bubblewrap", "namespaces")
USERS = {"root": False, "plain": True}
ENDS_ITSELF = {
    "calls_of_32_bits_mode": {"killed"},
    "kill_everybody": {"killed", "done"},
    "kill_the_harness": {"killed", "done"},
    "kill_its_group": {"killed", "done"},
    "report_by_descriptor": {"killed"},
    "stop_the_harness": {"timeout", "done"},
}
"""Attempts that may cost the program its own process, or its own sandbox."""
READS = {
    "read_secret",
    "read_home",
    "read_checkout",
    "read_shadow",
    "read_passwd",
    "see_temporary_files",
    "find_canaries_anywhere",
    "dots_upwards",
    "move_to_root_by_descriptor",
    "devices_of_the_host",
    "shared_memory_file",
    "system_folders",
    "control_groups",
    "setuid_programs",
    "process_folder",
    "controlling_terminal",
    "names",
    "become_the_caller",
}
"""What the weak level does not prevent, and says so."""


@pytest.fixture(scope="module", autouse=True)
def copies() -> Iterator[None]:
    if os.geteuid() != 0:
        pytest.fail("the escape suite must be started as root: it runs as root and as a user without rights")
    yield
    host.remove()


@cache
def results(level: str, user: str) -> dict[str, Any]:
    return host.call(USERS[user], "escapes", level, own=level == "weak")


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("level", STRONG)
class TestStrong:
    def test_it_runs_under_this_level_and_user(self, level, user):
        found = results(level, user)
        assert level in found["level"]
        assert (found["uid"] == 0) is (user == "root")

    def test_no_attempt_gets_anything(self, level, user):
        found = results(level, user)["escapes"]
        assert len(found) == len(ATTEMPTS) >= 60
        assert {name: seen for name, seen in found.items() if not _held(name, seen)} == {}

    def test_what_exhausts_is_ended_for_the_right_reason_and_leaves_nothing(self, level, user):
        found = results(level, user)["exhausted"]
        wrong = {name: seen for name, seen in found.items() if seen["kind"] not in EXHAUSTING[name][1] or seen["left"]}
        assert wrong == {}

    def test_the_caller_is_unharmed_and_the_next_sample_is_scored(self, level, user):
        found = results(level, user)
        assert found["harmed"] == []
        assert found["left"] == 0
        assert found["after"] == {"kind": "done", "text": "", "answer": "6\n"}


@pytest.mark.parametrize("user", USERS)
class TestWeak:
    """Without namespaces a program reads what its user can. It still writes, reaches, signals and leaves nothing."""

    def test_no_attempt_does_anything_but_read(self, user):
        found = results("weak", user)["escapes"]
        wrong = {name: seen for name, seen in found.items() if name not in READS and not _held(name, seen)}
        assert wrong == {}

    def test_what_exhausts_is_ended_and_leaves_nothing(self, user):
        found = results("weak", user)
        hung = {name: seen for name, seen in found["exhausted"].items() if seen["left"]}
        assert hung == {}
        for name in ("endless_loop", "sleep", "hang_in_c"):
            assert found["exhausted"][name]["kind"] in ("timeout", "memory"), name
        assert found["exhausted"]["memory"]["kind"] == "memory"
        assert found["exhausted"]["output"]["kind"] == "output"

    def test_the_caller_is_unharmed_and_the_next_sample_is_scored(self, user):
        found = results("weak", user)
        assert found["harmed"] == []
        assert found["left"] == 0
        assert found["after"]["answer"] == "6\n"


def _held(name: str, seen: dict[str, Any]) -> bool:
    if "canary-of" in str(seen) or "ESCAPED" in seen["answer"]:
        return False
    return seen["kind"] in ENDS_ITSELF.get(name, {"done"}) and (
        seen["kind"] != "done" or seen["answer"].startswith("held")
    )
