"""Starts and stops a private SLURM cluster with two nodes on this machine, for tests."""

import contextlib
import getpass
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol", "sinfo")
_CONFIG = pathlib.Path(__file__).parent / "real_slurm"
_NODES = ("haptest1", "haptest2")
_HOSTS = pathlib.Path("/etc/hosts")
_HOSTS_LINE = f"127.0.0.1 {' '.join(_NODES)} # for a test with SLURM"
_OVER = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "PREEMPTED", "NODE_FAIL", "OUT_OF_MEMORY")
_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])


def missing():
  """Returns the reason why no cluster can start here, or an empty string."""
  absent = [name for name in PROGRAMS if shutil.which(name, path=_PATH) is None]
  if absent:
    return f"{', '.join(absent)} not installed: apt-get install slurm-wlm munge"
  if os.geteuid() != 0:
    return "root is needed to start SLURM's daemons and to name its nodes in /etc/hosts"
  return ""


class Cluster:
  """A running cluster, as a context manager. At the end it stops all processes of the cluster.

  Attributes:
    folder: new folder with all files of the cluster; `remove` removes it.
    env: environment of SLURM's commands and of the jobs.
  """

  def __init__(self):
    # munged requires a folder that everybody may enter, and a short path for its socket.
    self.folder = pathlib.Path(tempfile.mkdtemp(prefix="slurm."))
    self.folder.chmod(0o755)
    self.env = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    self.env |= {"SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": _PATH}
    self._daemons = []

  def __enter__(self):
    try:
      self._start()
    except BaseException:
      self._stop()
      raise
    return self

  def __exit__(self, *_):
    self._stop()

  def remove(self):
    """Removes the cluster's folder; requires that the cluster has stopped."""
    shutil.rmtree(self.folder)

  def run(self, *words):
    """Runs a SLURM command and returns its output, or an empty string if the command fails."""
    done = subprocess.run(words, env=self.env, capture_output=True, text=True, timeout=60, check=False)
    return done.stdout if done.returncode == 0 else ""

  def job(self, number):
    """Returns the fields {name: value} that `scontrol show job` prints for a job."""
    return dict(re.findall(r"(\w+)=(\S*)", self.run("scontrol", "-o", "show", "job", str(number))))

  def wait_until_over(self, number, seconds):
    """Waits until a job is over and returns its fields; a requeued job is not over."""
    self.wait(lambda: self.job(number).get("JobState") in _OVER, seconds)
    return self.job(number)

  def wait(self, condition, seconds):
    """Calls `condition` twice per second until it is true or the time is over; returns its last value."""
    deadline = time.monotonic() + seconds
    while not (value := condition()) and time.monotonic() < deadline:
      time.sleep(0.5)
    return value

  def _start(self):
    _write_hosts([*_read_hosts(), _HOSTS_LINE])
    host = socket.gethostname().partition(".")[0]
    words = {"DIR": self.folder, "HOST": host, "USER": getpass.getuser()}
    words |= {f"PORT{i}": port for i, port in enumerate(_free_ports(3))}
    # The templates have words such as @DIR@ for values that only this run knows.
    for path in _CONFIG.iterdir():
      text = re.sub(r"@(\w+)@", lambda match: str(words[match[1]]), path.read_text())
      (self.folder / path.name).write_text(text)
    for name in ("state", *(f"spool.{node}" for node in _NODES)):
      (self.folder / name).mkdir()
    key = self.folder / "munge.key"
    key.touch(0o600)
    key.write_bytes(os.urandom(128))
    options = {
      "socket": "socket",
      "key-file": "key",
      "pid-file": "pid",
      "log-file": "log",
      "seed-file": "seed",
    }
    files = [f"--{option}={self.folder}/munge.{suffix}" for option, suffix in options.items()]
    # The other daemons need munged for their authentication, so it starts first.
    self._daemon("munged", "--foreground", *files)
    assert self.wait((self.folder / "munge.socket").exists, 20), self._printed()
    self._daemon("slurmctld", "-D", "-c")
    for node in _NODES:
      self._daemon("slurmd", "-D", "-N", node)
    states = lambda: self.run("sinfo", "-h", "-N", "-p", "toy", "-o", "%t").split()  # noqa: E731
    assert self.wait(lambda: states() == ["idle", "idle"], 60), self._printed()

  def _daemon(self, *words):
    """Starts a daemon in a new session, so that Ctrl-C does not end it before its jobs."""
    with (self.folder / "daemons.out").open("ab") as out:
      self._daemons.append(
        subprocess.Popen(words, env=self.env, stdout=out, stderr=out, start_new_session=True)
      )

  def _printed(self):
    """Returns the last 2000 characters of the daemons' output."""
    return (self.folder / "daemons.out").read_text()[-2000:]

  def _stop(self):
    """Ends the jobs, then the daemons, then all other processes with this cluster's environment."""
    with contextlib.suppress(subprocess.TimeoutExpired):
      # A daemon that ends before its jobs leaves their processes behind.
      for _ in range(20):
        jobs = self.run("squeue", "-h", "-o", "%i").split()
        if not jobs:
          break
        self.run("scancel", "--full", "--signal=KILL", *jobs)
        self.run("scancel", *jobs)
        time.sleep(1)
    for number in (signal.SIGTERM, signal.SIGKILL):
      for daemon in self._daemons:
        daemon.send_signal(number)
      deadline = time.monotonic() + 5
      while any(daemon.poll() is None for daemon in self._daemons) and time.monotonic() < deadline:
        time.sleep(0.1)
    mark = f"SLURM_CONF={self.folder}/slurm.conf".encode()
    for path in pathlib.Path("/proc").glob("[0-9]*/environ"):
      with contextlib.suppress(OSError):
        if mark in path.read_bytes().split(b"\0"):
          os.kill(int(path.parent.name), signal.SIGKILL)
    _write_hosts(_read_hosts())


def _read_hosts():
  """Returns the lines of /etc/hosts without the line of the cluster."""
  return [line for line in _HOSTS.read_text().splitlines() if line != _HOSTS_LINE]


def _write_hosts(lines):
  """Writes /etc/hosts in place, because a container may mount it and then nothing can replace the file."""
  _HOSTS.write_text("".join(f"{line}\n" for line in lines))


def _free_ports(count):
  """Returns ports of 127.0.0.1 that are free now."""
  with contextlib.ExitStack() as held:
    sockets = [held.enter_context(socket.socket()) for _ in range(count)]
    for one in sockets:
      one.bind(("127.0.0.1", 0))
    return [one.getsockname()[1] for one in sockets]
