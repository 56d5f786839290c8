"""Tests of work in processes."""

import os
import signal

import pytest

from hap_jax.synthetic import parallel


def _square(numbers):
  return [n * n for n in numbers]


def _end(_):
  os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("workers", [0, 2])
def test_results_come_in_order_with_and_without_processes(workers):
  assert parallel.map_in_processes(_square, [[1, 2], [3], []], workers) == [[1, 4], [9], []]


def test_a_process_ended_from_outside_is_an_error_in_one_line():
  with pytest.raises(
    OSError, match="was ended by a signal or because memory was full: start the command again"
  ):
    parallel.map_in_processes(_end, [0], 1)
