"""Work ahead: in order, bounded, at the same time; errors and stops come through."""

import threading
import time
from functools import partial

import pytest

from unet.predicting.ahead import ahead


def jobs(numbers, make=lambda number: number):
    return (partial(make, number) for number in numbers)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_all_items_come_in_order(threads):
    def slow(number):
        time.sleep(0.01 * (number % 3))
        return number

    assert list(ahead(jobs(range(20), slow), 3, threads)) == list(range(20))
    assert list(ahead([], 1, threads)) == []


@pytest.mark.parametrize("threads", [1, 2])
def test_the_next_is_made_meanwhile_and_no_more_than_that(threads):
    begun, all_begun = [], threading.Event()

    def make(number):
        begun.append(number)
        if len(begun) == 1 + threads:
            all_begun.set()
        return number

    taken = ahead(jobs(range(5), make), threads, threads)
    assert next(taken) == 0
    assert all_begun.wait(5)  # without being asked for
    time.sleep(0.05)
    assert sorted(begun) == list(range(1 + threads))
    assert list(taken) == [1, 2, 3, 4]


def test_two_threads_work_at_once():
    both = threading.Barrier(2, timeout=5)
    assert list(ahead(jobs(range(4), lambda _: both.wait() >= 0), 2, 2)) == [True] * 4


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, MemoryError])
def test_what_is_raised_comes_in_its_turn(error, threads):
    def make(number):
        if number:
            raise error("here")
        time.sleep(0.05)
        return number

    for failing in (jobs(range(9), make), (make(number) if number else partial(make, 0) for number in range(9))):
        taken = ahead(failing, threads, threads)
        assert next(taken) == 0
        with pytest.raises(error, match="here"):
            next(taken)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_caller_that_stops_ends_the_threads(threads):
    begun = []
    for item in ahead(jobs(range(100), lambda number: begun.append(number) or number), 1, threads):
        if item == 3:
            break
    time.sleep(0.05)
    assert len(begun) <= 6
    assert not [thread for thread in threading.enumerate() if thread.name == "ahead"]
