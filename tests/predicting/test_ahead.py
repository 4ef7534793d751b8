"""Work ahead: in order, bounded, at the same time; errors and stops come through."""

import threading
import time

import pytest

from unet.predicting.ahead import ahead


def test_all_items_come_in_order():
    assert list(ahead(iter(range(20)))) == list(range(20))
    assert list(ahead([])) == []


def test_the_next_is_made_meanwhile_and_no_more_than_that():
    begun, second = [], threading.Event()

    def items():
        for number in range(5):
            begun.append(number)
            if number == 1:
                second.set()
            yield number

    taken = ahead(items())
    assert next(taken) == 0
    assert second.wait(5)  # without being asked for
    time.sleep(0.05)
    assert begun == [0, 1]
    assert list(taken) == [1, 2, 3, 4]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, MemoryError])
def test_what_is_raised_comes_in_its_turn(error):
    def items():
        yield 1
        raise error("here")

    taken = ahead(items())
    assert next(taken) == 1
    with pytest.raises(error, match="here"):
        next(taken)


def test_a_caller_that_stops_ends_the_thread():
    begun = []
    for item in ahead(begun.append(number) or number for number in range(100)):
        if item == 3:
            break
    time.sleep(0.05)
    assert len(begun) <= 6
    assert not [thread for thread in threading.enumerate() if thread.name == "ahead"]
