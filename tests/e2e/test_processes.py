"""Two processes of one run give the same training and the same scores as one process."""

import sys

import numpy as np
import pytest
from PIL import Image

from hap_jax.data.sources import synthetic
from hap_jax.io import checkpoint_file
from hap_jax.train.report import read_metrics
from tests import programs

# There are thirteen records to score. Neither the batch size of four nor two processes divide this number.
SIDES = {
  "train": [(p, c, n) for p in (2, 7) for c in (1, 2) for n in (0, 1)],
  "query": [(3, 1, 0), (4, 2, 0), (5, 1, 0), (6, 2, 0), (6, 3, 0)],
  "gallery": [(3, 2, 0), (3, 1, 1), (4, 1, 0), (4, 3, 0), (5, 2, 0), (5, 3, 1), (6, 1, 0), (9, 1, 0)],
}
FLAGS = [
  "--config=configs/finetune_reid_demo.py",
  "--config.total_steps=1",  # the learning rate of the first step is 0, so both runs score the same weights
  "--config.batch_size=8",
  "--config.eval_batch_size=4",
  "--config.log_every=1",
  "--config.model.image_size=(32, 16)",
  "--config.model.scan=True",
  "--config.data.source=identity_folder",
]


@pytest.fixture(scope="module")
def people(tmp_path_factory):
  """Returns a folder with one sub-folder per identity: eight training pictures and thirteen to score."""
  root, drawn = tmp_path_factory.mktemp("people"), synthetic.open_source(num_train=80, image_size=(40, 20))
  for split, side in SIDES.items():
    for pid, camid, number in side:
      path = root / split / str(pid) / f"{number}_c{camid}.png"
      path.parent.mkdir(parents=True, exist_ok=True)
      # Each person has eight drawn pictures: two per camera.
      Image.fromarray(drawn[8 * pid + 2 * (camid - 1) + number]["image"]).save(path)
  return root


def start(workdir, root, devices, extra=()):
  command = [
    sys.executable,
    "-m",
    "hap_jax.main",
    *FLAGS,
    f"--config.data.root={root}",
    f"--workdir={workdir}",
  ]
  return programs.start([*command, *extra], devices=devices)


def finish(*processes):
  outputs = [process.communicate(timeout=300)[0] for process in processes]
  assert [process.returncode for process in processes] == [0] * len(processes), "\n".join(outputs)
  return outputs


@pytest.mark.soak
def test_two_processes_give_the_same_scores_and_weights_as_one(people, tmp_path):
  alone, together = tmp_path / "alone", tmp_path / "together"
  pair = [start(together, people, 1, flags) for flags in programs.joined(2)]
  first, second = finish(*pair)
  finish(start(alone, people, 2))

  rows = [read_metrics(workdir) for workdir in (alone, together)]
  scores = [
    {k: v for k, v in row[-1].items() if k == "mAP" or k.startswith(("rank", "mINP"))} for row in rows
  ]
  assert len(scores[0]) == 5
  assert scores[0] == scores[1]
  assert rows[0][0]["loss"] == pytest.approx(rows[1][0]["loss"], rel=1e-5)
  assert "mAP" in first  # only the first process prints
  assert "mAP" not in second
  weights = [checkpoint_file.read(workdir)[0]["params"]["head"]["kernel"] for workdir in (alone, together)]
  np.testing.assert_array_equal(*weights)


def test_incomplete_process_flags_are_an_error(people, tmp_path):
  process = start(tmp_path / "run", people, 1, ["--num_processes=2"])
  output, _ = process.communicate(timeout=300)
  assert process.returncode == 1
  assert "expected all three" in output.splitlines()[-1]


def test_a_process_that_fails_ends_without_waiting_for_its_partner(people, tmp_path):
  """The partner still waits for it, at a barrier of jax or in a step."""
  first, second = programs.joined(2)
  partner = start(tmp_path / "run", people, 1, first)
  failing = start(tmp_path / "run", people, 1, [*second, "--config.mesh.data=7"])
  try:
    output, _ = failing.communicate(timeout=100)  # the barrier of jax would end only after 300 s
  finally:
    partner.kill()
    partner.communicate()
    failing.kill()
  assert failing.returncode == 1
  assert "error: config.mesh: data=7" in output.splitlines()[-1]
