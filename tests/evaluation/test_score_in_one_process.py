"""With several processes, process 0 computes the score and every process gets it."""

import json
import os
import pathlib
import subprocess
import sys

from tests import programs

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCORES = {"mAP": 0.1 + 0.2, "count": 3}  # the float needs 64 bits, so a float32 transfer would change it


def score_in_one_of_two(address, process_id, folder):
  """Runs in each of the two processes: evaluates once with a good score function and once with a failing one.

  It writes the observed scores, calls and error to <folder>/<process_id>.json.
  """
  import jax

  jax.distributed.initialize(address, num_processes=2, process_id=process_id)
  from hap_jax import sharding
  from hap_jax.evaluation.evaluate import Evaluation, make_evaluate

  calls = []

  def good(rows):
    calls.append(dict(rows))
    return SCORES

  def bad(rows):
    raise ValueError("no query has a match")

  found, error = make_evaluate(Evaluation({}, good), sharding.make_mesh())({})[0], None
  try:
    make_evaluate(Evaluation({}, bad), sharding.make_mesh())({})
  except (ValueError, RuntimeError) as raised:
    error = f"{type(raised).__name__}: {raised}"
  content = {"calls": len(calls), "scores": found, "error": error}
  (pathlib.Path(folder) / f"{process_id}.json").write_text(json.dumps(content))


def test_only_process_0_scores_and_both_processes_get_the_scores_or_the_error(tmp_path):
  env = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
  command = [sys.executable, __file__, programs.free_address()]
  pair = [
    subprocess.Popen([*command, str(i), str(tmp_path)], cwd=ROOT, env=env, stderr=subprocess.PIPE, text=True)
    for i in range(2)
  ]
  errors = [process.communicate(timeout=300)[1] for process in pair]
  assert [process.returncode for process in pair] == [0, 0], "\n".join(errors)
  first, second = (json.loads((tmp_path / f"{i}.json").read_text()) for i in range(2))
  assert (first["calls"], second["calls"]) == (1, 0)
  assert first["scores"] == second["scores"] == SCORES
  assert first["error"] == "ValueError: no query has a match"
  assert second["error"] == "RuntimeError: process 0 failed to score: ValueError: no query has a match"


if __name__ == "__main__":
  score_in_one_of_two(sys.argv[1], int(sys.argv[2]), sys.argv[3])
