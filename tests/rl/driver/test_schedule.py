"""The schedule is arithmetic: every promise of its docstring, for every shape of run."""

from __future__ import annotations

import dataclasses
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rl.data.tickets import TicketKind, derive_seed, sample_uid
from rl.driver.schedule import Schedule, evaluation_tickets


@st.composite
def schedules(draw: st.DrawFn) -> Schedule:
    per_ticket = draw(st.integers(1, 5))
    return Schedule(
        seed=draw(st.integers(0, 2**63)),
        num_problems=draw(st.integers(1, 30)),
        prompts_per_update=per_ticket * draw(st.integers(1, 4)),
        prompts_per_ticket=per_ticket,
        group_size=draw(st.integers(1, 8)),
        max_staleness=draw(st.integers(0, 4)),
        updates=draw(st.integers(0, 8)),
    )


@given(schedules())
def test_each_ticket_is_consumed_exactly_once_and_in_order(schedule: Schedule) -> None:
    consumed = [ticket.index for update in range(schedule.updates) for ticket in schedule.tickets_of(update)]
    assert consumed == list(range(schedule.total_tickets))
    for update in range(schedule.updates):
        tickets = schedule.tickets_of(update)
        assert {ticket.update for ticket in tickets} == {update}
        assert sum(len(ticket.problem_indices) for ticket in tickets) == schedule.prompts_per_update


@given(schedules())
def test_staleness_is_exact_and_versions_never_go_back(schedule: Schedule) -> None:
    tickets = [schedule.ticket(i) for i in range(schedule.total_tickets)]
    assert [t.update - t.version for t in tickets] == [min(schedule.max_staleness, t.update) for t in tickets]
    assert [t.version for t in tickets] == sorted(t.version for t in tickets)


@given(schedules(), st.integers(0, 10))
def test_a_ticket_may_start_when_its_policy_exists(schedule: Schedule, update_now: int) -> None:
    startable = [i for i in range(-1, schedule.total_tickets + 1) if schedule.may_start(i, update_now)]
    ahead = (update_now + schedule.max_staleness + 1) * schedule.tickets_per_update
    assert startable == list(range(min(ahead, schedule.total_tickets)))


@given(schedules())
def test_the_run_can_always_go_on(schedule: Schedule) -> None:
    for update in range(schedule.updates):
        assert all(schedule.may_start(ticket.index, update) for ticket in schedule.tickets_of(update))


@given(schedules())
def test_each_epoch_visits_each_problem_once(schedule: Schedule) -> None:
    stream = [p for i in range(schedule.total_tickets) for p in schedule.ticket(i).problem_indices]
    size = schedule.num_problems
    for start in range(0, len(stream) - size + 1, size):
        assert Counter(stream[start : start + size]) == Counter(range(size))
    rest = stream[len(stream) // size * size :]
    assert len(set(rest)) == len(rest)


@given(schedules(), st.randoms(use_true_random=False))
def test_nothing_depends_on_the_order_of_calls(schedule: Schedule, shuffler: random.Random) -> None:
    straight = {i: schedule.ticket(i) for i in range(schedule.total_tickets)}
    order = list(straight)
    shuffler.shuffle(order)
    assert all(Schedule(**vars(schedule)).ticket(i) == straight[i] for i in order)


def run_of(**changes: int) -> Schedule:
    shape = {
        "seed": 1,
        "num_problems": 1000,
        "prompts_per_update": 20,
        "prompts_per_ticket": 10,
        "group_size": 4,
        "max_staleness": 1,
        "updates": 100,
    }
    return Schedule(**{**shape, **changes})


def test_epochs_and_seeds_give_unrelated_orders() -> None:
    def epoch(schedule: Schedule, number: int) -> list[int]:
        return [p for i in range(number * 100, number * 100 + 100) for p in schedule.ticket(i).problem_indices]

    orders = [epoch(run_of(), 0), epoch(run_of(), 1), epoch(run_of(seed=2), 0), list(range(1000))]
    for i, first in enumerate(orders):
        for second in orders[:i]:
            assert sum(a == b for a, b in zip(first, second, strict=True)) < 10  # about 1 by chance


def test_staleness_and_length_of_the_run_change_no_prompt_and_no_noise() -> None:
    for index in range(20):
        base, other = run_of().ticket(index), run_of(max_staleness=3, updates=50).ticket(index)
        assert (base.problem_indices, base.seed) == (other.problem_indices, other.seed)


def test_the_order_is_the_same_for_ever() -> None:
    """Golden: a resumed run on another machine or numpy version must see the same problems and noise."""
    ticket = run_of(num_problems=10, prompts_per_ticket=20).ticket(0)
    assert ticket.problem_indices == (9, 3, 8, 5, 6, 2, 0, 7, 1, 4, 4, 3, 5, 1, 2, 0, 8, 6, 9, 7)
    assert ticket.seed == 320212769529642856
    assert sample_uid(ticket.seed, 2, 3) == 4770396196271807637


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_problems": 0}, "num_problems must be at least 1"),
        ({"group_size": 0}, "group_size must be at least 1"),
        ({"prompts_per_ticket": 15}, "not a multiple"),
        ({"max_staleness": -1}, "must not be negative"),
    ],
)
def test_impossible_shapes_are_refused(change: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run_of(**change)


def test_there_is_no_ticket_outside_the_run() -> None:
    for index in (-1, 200):
        with pytest.raises(IndexError):
            run_of().ticket(index)


@given(st.integers(0, 99), st.integers(1, 40), st.integers(1, 9))
def test_an_evaluation_covers_each_problem_once(update: int, num_problems: int, per_ticket: int) -> None:
    tickets = evaluation_tickets(5, update, num_problems, per_ticket, samples=2, kind=TicketKind.sampled)
    assert [p for t in tickets for p in t.problem_indices] == list(range(num_problems))
    assert [t.index for t in tickets] == list(range(len(tickets)))
    assert {(t.version, t.samples, t.kind) for t in tickets} == {(update, 2, TicketKind.sampled)}


def test_evaluations_repeat_their_noise_and_share_it_with_nobody() -> None:
    def seeds(update: int, kind: TicketKind) -> list[int]:
        return [t.seed for t in evaluation_tickets(1, update, 100, 10, samples=1, kind=kind)]

    assert seeds(0, TicketKind.sampled) == seeds(70, TicketKind.sampled)
    training = [run_of().ticket(i).seed for i in range(200)]
    everything = training + seeds(0, TicketKind.sampled) + seeds(0, TicketKind.greedy)
    assert len(set(everything)) == len(everything)
    other_run = evaluation_tickets(2, 0, 100, 10, samples=1, kind=TicketKind.sampled)
    assert not {ticket.seed for ticket in other_run} & set(everything)
    with pytest.raises(ValueError, match="training tickets"):
        seeds(0, TicketKind.train)


def test_every_sample_has_its_own_noise() -> None:
    uids = [sample_uid(seed, group, sample) for seed in (1, 2) for group in range(20) for sample in range(20)]
    assert len(set(uids)) == len(uids)
    assert all(0 <= uid < 2**63 for uid in uids)
    assert max(uids) > 2**62  # the upper bits are in use


def test_seeds_tell_parts_apart() -> None:
    assert derive_seed(1, "a", 23) != derive_seed(1, "a2", 3)
    assert derive_seed("1") != derive_seed(1)


@given(schedules().filter(lambda schedule: schedule.updates > 0), st.data())
def test_refills_have_prompts_noise_and_numbers_of_their_own(schedule: Schedule, data: st.DataObject) -> None:
    update = data.draw(st.integers(0, schedule.updates - 1))
    prompts = data.draw(st.integers(1, schedule.prompts_per_update))
    first, second = (schedule.refill(update, attempt, prompts) for attempt in (0, 1))
    assert first == schedule.refill(update, 0, prompts)
    for tickets in (first, second):
        found = sum(len(ticket.problem_indices) for ticket in tickets)
        assert prompts <= found < prompts + schedule.prompts_per_ticket
        assert {(t.update, t.version) for t in tickets} == {(update, max(0, update - schedule.max_staleness))}
    planned = [schedule.ticket(i) for i in range(schedule.total_tickets)]
    everything = [*planned, *first, *second]
    assert len({t.seed for t in everything}) == len({t.index for t in everything}) == len(everything)
    longer = dataclasses.replace(schedule, updates=schedule.updates + 3)  # a run that is given more updates
    assert longer.refill(update, 1, prompts) == second


def test_refills_visit_each_problem_once_before_any_twice() -> None:
    schedule = Schedule(0, 64, 8, 4, 2, 0, 3)
    tickets = [t for update in range(3) for attempt in (0, 1) for t in schedule.refill(update, attempt, 8)]
    assert max(Counter(index for ticket in tickets[:4] for index in ticket.problem_indices).values()) == 1


def test_refills_of_another_run_have_other_noise() -> None:
    seeds = [[ticket.seed for ticket in Schedule(seed, 5000, 8, 4, 2, 1, 3).refill(0, 0, 8)] for seed in (0, 1)]
    assert not set(seeds[0]) & set(seeds[1])


def test_refills_of_one_update_are_not_those_of_another() -> None:
    """Neither their noise nor, within an epoch, their problems."""
    schedule = Schedule(0, 5000, 8, 4, 2, 1, 3)
    tickets = [
        ticket for update in range(3) for attempt in (0, 1, 63) for ticket in schedule.refill(update, attempt, 8)
    ]
    problems = [index for ticket in tickets for index in ticket.problem_indices]
    assert len({ticket.seed for ticket in tickets}) == len(tickets) == 18
    assert len(set(problems)) == len(problems) == 72
    planned = [
        index for update in range(3) for ticket in schedule.tickets_of(update) for index in ticket.problem_indices
    ]
    refilled = [index for ticket in schedule.refill(0, 0, 8) for index in ticket.problem_indices]
    assert planned[:8] != refilled  # a stream of their own
