"""Prefetching: in order, bounded, at the same time; errors and stops come through."""

import threading
from functools import partial

import pytest

from unet.predicting.prefetch import prefetch


def jobs(numbers, make=lambda number: number):
    return (partial(make, number) for number in numbers)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_all_items_come_in_order(threads):
    made = [threading.Event() for _ in range(21)]

    def after_the_next(number):  # where another thread can make that one
        if threads > 1 and number % 2 == 0 and number < 18:
            assert made[number + 1].wait(60)
        made[number].set()
        return number

    assert list(prefetch(jobs(range(20), after_the_next), 3, threads)) == list(range(20))
    assert list(prefetch([], 1, threads)) == []


@pytest.mark.parametrize("threads", [1, 2])
def test_the_next_is_made_meanwhile_and_no_more_than_that(threads):
    taken, before, next_begun = [], [], threading.Event()

    def make(number):
        before.append(number - len(taken))
        if number == threads:
            next_begun.set()
        return number

    for number in prefetch(jobs(range(20), make), threads, threads):
        if number == 0:
            assert next_begun.wait(60)  # without being asked for
        taken.append(number)
    assert taken == list(range(20))
    assert max(before) == threads


def test_two_threads_work_at_once():
    both = threading.Barrier(2, timeout=60)
    assert list(prefetch(jobs(range(4), lambda _: both.wait() >= 0), 2, 2)) == [True] * 4


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, MemoryError])
def test_what_is_raised_comes_in_its_turn(error, threads):
    def make(number):
        if number:
            raise error("here")
        return number

    for failing in (jobs(range(9), make), (make(number) if number else partial(make, 0) for number in range(9))):
        taken = prefetch(failing, threads, threads)
        assert next(taken) == 0
        with pytest.raises(error, match="here"):
            next(taken)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_caller_that_stops_ends_the_threads(threads):
    begun = []
    for item in prefetch(jobs(range(100), lambda number: begun.append(number) or number), 1, threads):
        if item == 3:
            break
    assert len(begun) <= 6
    assert not [thread for thread in threading.enumerate() if thread.name == "ahead"]
