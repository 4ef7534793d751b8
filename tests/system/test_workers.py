"""Work in several processes: results in order, few jobs under way, no process left behind."""

import math
import multiprocessing
import operator
import os
import signal
from concurrent.futures import ProcessPoolExecutor

import pytest

from unet.system.workers import in_order, run_python
from utils import UserError


def count_of(count, taken):
    """Jobs 0 .. count-1 that note which were taken."""
    for number in range(count):
        taken.append(number)
        yield number


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_order_and_few_jobs_are_under_way(workers):
    taken = []
    results = in_order(operator.neg, count_of(50, taken), workers)
    assert next(results) == 0
    assert len(taken) == (1 if workers == 1 else 4 * workers)
    assert list(results) == [-number for number in range(1, 50)]
    assert multiprocessing.active_children() == []


def test_ctrl_c_is_the_parents_to_answer():
    """A terminal sends it to the workers, too: they leave it, and end with the parent."""
    results = in_order(signal.getsignal, [signal.SIGINT] * 9, 2)
    assert next(results) is signal.SIG_IGN
    with pytest.raises(KeyboardInterrupt):
        results.throw(KeyboardInterrupt)
    assert multiprocessing.active_children() == []


@pytest.fixture
def interrupts():
    """Ctrl-C as a script hears it, where these tests were begun in the background, too, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interrupts")
def test_ctrl_c_at_the_end_waits_until_all_workers_have_ended(monkeypatch):
    ended = []
    shutdown = ProcessPoolExecutor.shutdown

    def interrupted(pool, **options):
        if not ended:
            os.kill(os.getpid(), signal.SIGINT)
        shutdown(pool, **options)
        ended.append(multiprocessing.active_children())

    monkeypatch.setattr(ProcessPoolExecutor, "shutdown", interrupted)
    with pytest.raises(KeyboardInterrupt):
        list(in_order(operator.neg, range(3), 2))
    assert ended[0] == []


@pytest.mark.parametrize(("ends", "status"), [("sys.exit(3)", 3), ("os.kill(os.getpid(), signal.SIGKILL)", 137)])
def test_a_process_of_python_leaves_its_status_as_in_a_shell(ends, status):
    assert run_python(["-c", f"import os, signal, sys; {ends}"]) == status


def test_what_a_worker_raises_arrives_and_a_lost_worker_is_one_line():
    with pytest.raises(ValueError, match=r"math domain error|expected a nonnegative input"):
        list(in_order(math.sqrt, [1, -1], 2))
    with pytest.raises(UserError, match=r"a worker process was ended from outside.*--workers 1"):
        list(in_order(os._exit, [1, 1], 2))
