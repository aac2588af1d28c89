"""What was answered is kept before it is used, and found again."""

from __future__ import annotations

from pathlib import Path

import pytest

from rewards.judge.records import Records, key_of
from rewards.judge.settings import Settings
from rewards.judge.verdict import Reply
from rewards.unavailable import Unavailable

REPLY = Reply("2\ud800", "stop", (5, 1), (("2", -0.5), ("x", -2.0)))


def test_another_process_finds_what_was_kept(tmp_path: Path) -> None:
    Records(tmp_path).put("a", REPLY)
    Records(tmp_path).put("b", REPLY)
    again = Records(tmp_path)
    assert (again.get("a"), again.get("b"), again.get("c")) == (REPLY, REPLY, None)
    assert len(list(tmp_path.iterdir())) == 2


def test_half_a_line_is_asked_again_and_counted(tmp_path: Path) -> None:
    Records(tmp_path).put("a", REPLY)
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole + whole[:30] + b"\n" + b'{"key": "c", "reply": {"text": 3}}\n\xff\xfe\n')
    again = Records(tmp_path)
    assert len(again) == 1
    assert again.unreadable == 3


def test_what_cannot_be_kept_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    records = Records(None)
    records.put("a", REPLY)
    records = Records(tmp_path / "taken" / "judge")
    with pytest.raises(Unavailable, match=r"cannot be kept in .*Nothing is used that is not kept"):
        records.put("a", REPLY)
    assert records.get("a") is None


def test_everything_that_decides_an_answer_is_in_the_key() -> None:
    def settings(**args: object) -> Settings:
        return Settings.of({"url": "http://127.0.0.1:1/v1", "model": "m", **args}, "quality")

    plain = settings()
    keys = [
        key_of(plain.request("text", "m", 0)),
        key_of(plain.request("other text", "m", 0)),
        key_of(plain.request("text", "n", 0)),
        key_of(plain.request("text", "m", 1)),
        key_of(settings(seed=7).request("text", "m", 0)),
        key_of(settings(temperature=0.5).request("text", "m", 0)),
        key_of(settings(system="be strict").request("text", "m", 0)),
        key_of(settings(max_tokens=2).request("text", "m", 0)),
        key_of(settings(constrained=True).request("text", "m", 0)),
        key_of(settings(mode="expectation").request("text", "m", 0)),
    ]
    assert len(set(keys)) == len(keys)
    assert key_of(settings(concurrency=1, patience_seconds=3).request("text", "m", 0)) == keys[0]
