"""Reports the tests that take more than 8 CPU seconds, set-up and child processes included."""

import os

import pytest

BUDGET = (
  8.0  # CPU seconds of one test; what takes more shares its set-up with others, or moves to `make soak`
)
_KEY = "cpu_seconds"
_found = {}  # {name of a test: CPU seconds} of this session, in the process that reports


def pytest_addoption(parser):
  parser.addoption(
    "--cpu_limit",
    type=float,
    metavar="SECONDS",
    help="fail if a test takes more CPU seconds; by hand only, because the result depends on the machine",
  )


def _cpu_seconds():
  """Returns the CPU time of this process and its children that have ended."""
  return sum(os.times()[:4])


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_logstart(nodeid, location):
  del nodeid, location
  pytest_runtest_logstart.began = _cpu_seconds()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
  """Adds the CPU time to the last of a test's three reports, which pytest-xdist sends to the main process."""
  del item
  outcome = yield
  if call.when == "teardown":
    spent = _cpu_seconds() - pytest_runtest_logstart.began
    outcome.get_result().user_properties.append((_KEY, round(spent, 1)))


def pytest_runtest_logreport(report):
  for key, value in report.user_properties:
    if key == _KEY:
      _found[report.nodeid] = value


def pytest_terminal_summary(terminalreporter, config):
  limit = config.getoption("--cpu_limit") or BUDGET
  slow = sorted(((spent, name) for name, spent in _found.items() if spent > limit), reverse=True)
  if slow:
    terminalreporter.section(f"{len(slow)} tests above {limit:g} CPU seconds (budget: {BUDGET:g})")
    for spent, name in slow:
      terminalreporter.write_line(f"{spent:7.1f} s  {name}")


def pytest_sessionfinish(session):
  limit = session.config.getoption("--cpu_limit")
  is_worker = hasattr(session.config, "workerinput")
  if limit and not is_worker and any(spent > limit for spent in _found.values()):
    session.exitstatus = pytest.ExitCode.TESTS_FAILED
