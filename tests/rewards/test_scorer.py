"""Each bad function costs the samples it was bad on; deadlines are short, so that the tests are quick."""

import json
import os
import re
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace

import numpy as np
import pytest

from rewards.options import RewardOptions, RewardTerm
from rewards.registry import RewardError
from rewards.scoring.process import ScoringProcess
from rewards.scoring.scorer import Scorer
from rewards.scoring.scores import Logged, ScoreRequest
from rewards.scoring.term_call import LOST_LIMIT

TIMEOUT = 0.5
FAULTY = "tests.rewards.faulty_rewards.faulty"


def make_scorer(timeout=TIMEOUT, memory_gib=4.0, **terms):
    terms = {name: term if isinstance(term, RewardTerm) else RewardTerm(function=term) for name, term in terms.items()}
    return Scorer(RewardOptions(terms=terms, timeout_seconds=timeout, memory_gib=memory_gib))


@pytest.fixture
def scorer_of():
    scorers = []

    def make(**arguments):
        scorers.append(make_scorer(**arguments))
        return scorers[-1]

    yield make
    for scorer in scorers:
        scorer.stop()


@pytest.fixture(scope="module")
def faulty():
    """Of a process with many open files, as one that Ray has joined: the connection's number is not small."""
    taken = [os.open(os.devnull, os.O_RDONLY) for _ in range(64)]
    scorer = make_scorer(faulty="tests.rewards.faulty_rewards.faulty")
    yield scorer
    scorer.stop()
    for descriptor in taken:
        os.close(descriptor)


def request_of(*completions, **columns):
    return ScoreRequest(prompts=["p"] * len(completions), completions=list(completions), columns=columns)


@pytest.mark.parametrize(
    ("completion", "kind", "message"),
    [
        ("raise", "exception", "KeyError: 'no such thing'.*faulty_rewards.py"),
        ("exit", "exception", "SystemExit: 3"),
        ("text", "exception", "returned '1.0'.*a number or None is expected"),
        ("object", "exception", "not 'object'"),
        ("memory", "exception", "MemoryError"),
        ("nan", "not_finite", "nan"),
        ("inf", "not_finite", "inf"),
        ("none", "not_applicable", "every rewarded term returned None"),
        ("surrogate", "exception", r"half of a pair \\ud800, a red word \\x1b\[31m"),
        ("unreadable", "exception", "Unreadable"),
        ("hang", "timeout", "no answer within 0.5 s"),
        ("hold the lock", "timeout", "no answer within 0.5 s"),
        ("os._exit", "crash", "exited with status 7"),
        ("kill", "crash", "killed by SIGKILL"),
        ("close", "crash", "killed"),
        ("write everywhere", "crash", "a reward function wrote into the connection"),
        ("answer again", "crash", r"reply 1 came where \d+ was due: a reward function left a process behind"),
        ("garbage", "crash", "the scoring process"),
    ],
)
def test_a_bad_sample_costs_that_sample_and_no_other(faulty, completion, kind, message):
    scores = faulty.score(request_of("good", completion, "also good"))
    np.testing.assert_array_equal(scores.total, [1.0, np.nan, 1.0])
    np.testing.assert_array_equal(scores.terms["faulty"], [1.0, np.nan, 1.0])
    (failure,) = scores.failures
    assert (failure.index, failure.term, failure.kind, failure.completion) == (1, "faulty", kind, completion)
    assert re.search(message, failure.message)


@pytest.mark.parametrize("completion", ["noise", "read"])
def test_standard_streams_do_not_disturb_the_connection(faulty, completion):
    np.testing.assert_array_equal(faulty.score(request_of("good", completion)).total, [1.0, 1.0])


def test_a_single_bad_sample_is_not_called_twice(faulty, monkeypatch):
    calls = []
    call = ScoringProcess.call
    monkeypatch.setattr(ScoringProcess, "call", lambda self, *rest: calls.append(rest) or call(self, *rest))
    assert [failure.kind for failure in faulty.score(request_of("hang")).failures] == ["timeout"]
    assert len(calls) == 1


def test_an_empty_request_is_answered(faulty):
    scores = faulty.score(request_of())
    assert scores.total.shape == (0,)
    assert scores.failures == []


def test_one_process_serves_every_call_until_it_is_lost(scorer_of):
    scorer = scorer_of(pid="tests.rewards.faulty_rewards.process_id", faulty="tests.rewards.faulty_rewards.faulty")
    first, second = (scorer.score(request_of("a", "b")).terms["pid"][0] for _ in range(2))
    assert first == second != os.getpid()
    scorer.score(request_of("kill"))
    assert scorer.score(request_of("a")).terms["pid"][0] != first
    with pytest.raises(ProcessLookupError):
        os.kill(int(first), 0)


def test_a_function_that_forks_does_not_shift_the_replies(scorer_of):
    """Two processes that came back from one request used to answer it twice, and each later batch got the last one's
    rewards."""
    scorer = scorer_of(size="tests.rewards.faulty_rewards.length_and_fork")
    for completions in [("fork", "a"), ("ab", "abc"), ("abcd", "fork"), ("a", "abcde")]:
        scores = scorer.score(request_of(*completions))
        np.testing.assert_array_equal(scores.total, [len(text) for text in completions])
        assert not scores.failures


def test_malformed_is_said_of_a_sample_that_is_there(scorer_of):
    """Of the one behind the last it ended the run, and of the one before the first it was said of another sample."""
    scores = scorer_of(task="tests.rewards.faulty_rewards.speaks_of_another").score(request_of("behind", "before"))
    assert [(failure.index, failure.kind) for failure in scores.failures] == [(0, "exception"), (1, "exception")]
    assert "sample 1, and there are samples 0 to 0" in scores.failures[0].message
    assert "sample -1, and there are" in scores.failures[1].message


def test_terms_are_weighted_summed_and_reported_unweighted(scorer_of):
    scorer = scorer_of(
        size=RewardTerm(function="tests.rewards.faulty_rewards.length", weight=0.5),
        batch=RewardTerm(function="tests.rewards.faulty_rewards.batch_size", weight=-2.0),
    )
    scores = scorer.score(request_of("a", "bbb", "cccc"))
    np.testing.assert_array_equal(scores.terms["size"], [1, 3, 4])
    np.testing.assert_array_equal(scores.terms["batch"], [3, 3, 3])
    np.testing.assert_array_equal(scores.total, [0.5 - 6, 1.5 - 6, 2.0 - 6])
    assert scores.total.dtype == np.float64


def test_none_leaves_a_term_out_of_the_sum_but_a_failure_costs_the_sample(scorer_of):
    scorer = scorer_of(faulty="tests.rewards.faulty_rewards.faulty", size="tests.rewards.faulty_rewards.length")
    scores = scorer.score(request_of("none", "raise", "nan", "good"))
    np.testing.assert_array_equal(scores.total, [4.0, np.nan, np.nan, 5.0])
    np.testing.assert_array_equal(scores.terms["size"], [4.0, 5.0, 3.0, 4.0])
    assert [(failure.index, failure.kind) for failure in scores.failures] == [(1, "exception"), (2, "not_finite")]


def test_a_measure_is_reported_and_costs_no_sample(scorer_of):
    measure = RewardTerm(function="tests.rewards.faulty_rewards.faulty", weight=0.0)
    scorer = scorer_of(size="tests.rewards.faulty_rewards.length", measure=measure)
    scores = scorer.score(request_of("none", "raise", "nan", "hang", "good"))
    np.testing.assert_array_equal(scores.total, [4.0, 5.0, 3.0, 4.0, 4.0])
    np.testing.assert_array_equal(scores.terms["measure"], [np.nan] * 4 + [1.0])
    assert [failure.kind for failure in scores.failures] == ["exception", "not_finite", "timeout"]
    assert {failure.term for failure in scores.failures} == {"measure"}


def test_a_measure_does_not_stand_in_for_a_reward_that_does_not_apply(scorer_of):
    measure = RewardTerm(function="tests.rewards.faulty_rewards.length", weight=0.0)
    scores = scorer_of(measure=measure, faulty="tests.rewards.faulty_rewards.faulty").score(request_of("none", "good"))
    np.testing.assert_array_equal(scores.total, [np.nan, 1.0])
    np.testing.assert_array_equal(scores.terms["measure"], [4.0, 4.0])
    assert [(failure.kind, failure.term) for failure in scores.failures] == [("not_applicable", "faulty")]


def test_only_measures_are_no_reward():
    with pytest.raises(RewardError, match="weight 0 and is only a measure"):
        make_scorer(measure=RewardTerm(function="math", weight=0.0))


def test_images_are_scored_and_failures_keep_only_their_shape(scorer_of):
    scorer = scorer_of(size="jpeg_compressibility")
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    scores = scorer.score(request_of(image, image / 255, "a text", image))
    assert scores.total[0] == scores.total[3] < 0
    assert np.isnan(scores.total[1:3]).all()
    kept = [failure.completion for failure in scores.failures]
    assert kept == ["image (32, 32, 3) of float64", "a text"]
    assert len(json.dumps([asdict(failure) for failure in scores.failures])) < 2000


def test_each_argument_arrives_with_its_sample(scorer_of):
    scorer = scorer_of(sees=RewardTerm(function="tests.rewards.faulty_rewards.sees", args={"bonus": 0.5}))
    request = ScoreRequest(
        prompts=["a", "bb"],
        completions=["ccc", "dddd"],
        completion_ids=[[0] * 5, [0] * 6],
        columns={"number": [7, 8], "completion": ["dropped", "like TRL does"]},
        update=2,
    )
    scores = scorer.score(request)
    np.testing.assert_array_equal(scores.total, [207531.5, 208642.5])
    assert scores.metrics == {"seen": Logged(total=4.0, samples=2)}


def test_an_asynchronous_function_is_awaited(scorer_of):
    assert scorer_of(task="tests.rewards.faulty_rewards.asynchronous").score(request_of("a")).total == [2.0]


def test_wrong_lengths_are_found_one_sample_at_a_time(scorer_of):
    scores = scorer_of(task="tests.rewards.faulty_rewards.drops_one").score(request_of("good", "drop", "good"))
    np.testing.assert_array_equal(scores.total, [1.0, np.nan, 1.0])
    assert [(failure.index, failure.kind) for failure in scores.failures] == [(1, "wrong_length")]


def test_a_function_slower_than_the_deadline_of_a_batch_is_learnt(scorer_of):
    scorer = scorer_of(slow="tests.rewards.faulty_rewards.slow", timeout=0.6)
    request = request_of(*"abcd")  # 1.2 s for the batch, 0.3 s for a sample
    np.testing.assert_array_equal(scorer.score(request).total, [1.0] * 4)  # one at a time: each batch had one sample
    np.testing.assert_array_equal(scorer.score(request).total, [4.0] * 4)  # at once


def test_many_hangs_take_bounded_time(scorer_of, monkeypatch):
    assert LOST_LIMIT < 32
    monkeypatch.setattr("rewards.scoring.term_call.LOST_LIMIT", 4)
    scorer = scorer_of(faulty="tests.rewards.faulty_rewards.faulty", timeout=0.05)
    scores = scorer.score(request_of(*["hang"] * 200, "good"))
    kinds = [failure.kind for failure in scores.failures]
    assert kinds == ["timeout"] * 4 + ["not_tried"] * 197
    assert np.isnan(scores.total).all()
    assert scorer.score(request_of("good")).total == [1.0]


@pytest.mark.parametrize(
    ("completion", "message"),
    [
        ("raise", r"reward.terms.task: tests.*faulty was called once before.*\(exception\): KeyError: 'no such thing'"),
        ("hang", r"\(timeout\): no answer within 0.5 s. Mend it; or, .* set reward.try_first=false"),
        ("os._exit", r"\(crash\): the scoring process exited with status 7"),
        ("drop", r"\(wrong_length\): returned 1 values for 2 samples"),
    ],
)
def test_a_term_that_fails_when_it_is_tried_is_refused(scorer_of, completion, message):
    scorer = scorer_of(task="tests.rewards.faulty_rewards.drops_one" if completion == "drop" else FAULTY)
    scorer.try_out(request_of("good", "none"))
    with pytest.raises(RewardError, match=message):
        scorer.try_out(request_of("good", completion))


def test_a_request_is_answered_before_its_caller_stops_waiting(scorer_of):
    """A ticket whose reward hung was lost with its worker three times, and the run with it."""
    terms = dict.fromkeys(("first", "second"), "tests.rewards.faulty_rewards.faulty")
    scorer = scorer_of(timeout=0.2, **terms)
    scorer.start()
    request = replace(request_of("good", *["hang"] * 12), seconds=1.0)
    started = time.monotonic()
    scores = scorer.score(request)
    kinds = {failure.kind for failure in scores.failures if failure.index}
    assert kinds <= {"timeout", "not_tried"}
    assert {failure.index for failure in scores.failures} >= set(range(1, 13))
    tried = sum(failure.kind == "timeout" for failure in scores.failures)
    assert tried <= 5  # of 24
    assert time.monotonic() - started < 60
    (message,) = {f.message.partition(" s ")[2] for f in scores.failures if f.kind == "not_tried"}
    assert message == "were left of the time that a ticket has (rollout.timeout_seconds), and a sample may need 0.2 s"


def test_a_process_that_is_killed_while_it_imports_is_started_again(tmp_path, monkeypatch):
    code = f"import os, pathlib; mark = pathlib.Path({str(tmp_path / 'mark')!r})\n"
    code += "if not mark.exists(): mark.touch(); os.kill(os.getpid(), 9)\n"
    code += "def reward(completions, **kwargs): return [1.0] * len(completions)\n"
    (tmp_path / "module_killed_once.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    scorer = make_scorer(task="module_killed_once.reward")
    assert scorer.score(request_of("a")).total == [1.0]
    scorer.stop()


def test_what_functions_print_is_kept_in_a_bounded_file(tmp_path, monkeypatch):
    monkeypatch.setattr("rewards.scoring.printed.LIMIT_BYTES", 4096)
    terms = {"task": RewardTerm("tests.rewards.faulty_rewards.prints_without_end")}
    path = tmp_path / "printed" / "reward-0.txt"
    scorer = Scorer(RewardOptions(terms=terms, timeout_seconds=10.0), path)
    for _ in range(2):
        assert scorer.score(request_of("a")).total == [1.0]
    scorer.stop()
    kept = path.read_text()
    assert kept.startswith("first \x1b[31m\nxxx")
    assert kept.endswith("\n(what was printed after this is not kept: the file has reached its limit)\n")
    assert len(kept) < 4300
    crashing = Scorer(RewardOptions(terms={"task": RewardTerm("tests.rewards.faulty_rewards.faulty")}), path)
    (failure,) = crashing.score(request_of("os._exit")).failures
    crashing.stop()
    assert failure.message.endswith(f"; what it printed is in {path}")


def test_killing_the_process_kills_what_it_started(scorer_of, tmp_path):
    scorer = scorer_of(task="tests.rewards.faulty_rewards.leaves_a_process", timeout=1.0)
    scores = scorer.score(request_of(str(tmp_path / "ids")))
    assert [failure.kind for failure in scores.failures] == ["timeout"]
    assert_all_end((tmp_path / "ids").read_text())


def test_processes_end_with_a_parent_that_is_killed(tmp_path):
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "from tests.rewards.test_scorer import *; "
            "make_scorer(task='tests.rewards.faulty_rewards.leaves_a_process', timeout=1000)"
            f".score(request_of({str(tmp_path / 'ids')!r}))",
        ],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    wait_until(lambda: (tmp_path / "ids").exists() and (tmp_path / "ids").read_text(), 60)
    parent.kill()
    parent.wait()
    assert_all_end((tmp_path / "ids").read_text())


def assert_all_end(ids):
    for process_id in ids.split():
        wait_until(lambda process_id=process_id: ended(process_id), 10)


def ended(process_id):
    try:
        with open(f"/proc/{process_id}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] == "Z"  # an orphan may have nobody to reap it
    except FileNotFoundError:
        return True


def wait_until(condition, seconds):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_scoring_works_off_the_main_thread(scorer_of):
    scorer, totals = scorer_of(faulty="tests.rewards.faulty_rewards.faulty"), []
    threads = [
        threading.Thread(target=lambda: totals.append(scorer.score(request_of("hang", "good")).total)) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_array_equal(totals, [[np.nan, 1.0]] * 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "reward.terms is empty"),
        ({"task": "math", "timeout": 0.0}, "timeout_seconds is 0.0; it must be positive"),
        ({"task": RewardTerm(function="math", weight=float("nan"))}, "reward.terms.task.weight is nan"),
        ({"task": "maths"}, "reward.terms.task: no reward function is called 'maths': nearest registered names: math"),
        ({"task": RewardTerm(function="math", args={"prompts": 1})}, "task.args: prompts is filled in by the trainer"),
    ],
)
def test_a_wrong_configuration_is_an_error_before_training(arguments, message):
    with pytest.raises(RewardError, match=message):
        make_scorer(**arguments).start()


@pytest.mark.parametrize(
    ("code", "limit", "message"),
    [
        ("import time; time.sleep(1000)", 1.0, "took longer than reward.startup_timeout_seconds = 1"),
        ("import os; os._exit(5)", 60.0, "ended twice while importing the reward functions: .* exited with status 5"),
    ],
)
def test_a_module_that_never_finishes_importing_is_an_error(tmp_path, monkeypatch, code, limit, message):
    (tmp_path / "module_that_stops.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    options = RewardOptions(terms={"task": RewardTerm("module_that_stops.reward")}, startup_timeout_seconds=limit)
    with pytest.raises(RewardError, match=message):
        Scorer(options).start()


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (request_of("a", "b", answer=["1"]), "2 completions, but {'answer': 1}"),
        (ScoreRequest(["p"], ["a"], completion_ids=[]), "'completion_ids': 0"),
        (request_of("a", trainer_state=["x"]), "column 'trainer_state' has the name of an argument"),
    ],
)
def test_a_malformed_request_is_an_error_and_no_sample_failure(faulty, request_, message):
    with pytest.raises(RewardError, match=message):
        faulty.score(request_)


def test_a_column_cannot_silently_replace_an_option_of_the_function(scorer_of):
    scorer = scorer_of(task=RewardTerm(function="math", args={"answer": ["1"]}))
    with pytest.raises(RewardError, match="column 'answer' has the name of an argument of reward term 'task'"):
        scorer.score(request_of("1", answer=["1"]))
