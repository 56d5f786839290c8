"""A description with wrong or missing facts of the network, in every task that reads it.

A fact that the arrays show is read from the arrays. A fact that they do not show is an error of one line.
"""

import json
import shutil

import pytest

from hap_jax.cli.__main__ import main as hap
from hap_jax.convert import read
from hap_jax.models import vit
from tests.recorded import record

RUNS = record.FOLDER / "2026-11-30c"
MISSING = object()


@pytest.fixture(autouse=True)
def small_model(monkeypatch):
  monkeypatch.setattr(vit, "VARIANTS", dict(vit.VARIANTS))
  record.shrink(vit.VARIANTS)


@pytest.mark.parametrize(
  ("task", "key", "value", "message"),
  [
    ("text_reid", "vocabulary", MISSING, "no list of words, expected 190 words"),
    ("text_reid", "vocabulary", 5, "no list of words"),
    ("text_reid", "vocabulary", ["[PAD]", "[UNK]", "[CLS]", "[SEP]"], "has 4 words, expected 190"),
    ("text_reid", "model.text", {}, "'num_heads': None"),
    ("text_reid", "model.text.num_heads", 3, "records 3 heads of its text encoder"),
    ("text_reid", "model.text_digest", "../../other", "expected true or false, and hexadecimal digits"),
    ("text_reid", "model.text_is_trained", MISSING, "text_is_trained=None"),
    ("text_reid", "model.max_tokens", 10**9, "max_tokens=1000000000, expected 1 to 8"),
    ("text_reid", "model.pooling", "sum", "pooling of the network in the description is 'sum'"),
    ("pose2d", "model.codec", MISSING, "codec of the network in the description is missing"),
    ("pose2d", "model.codec", 5, "is 5, expected udp or msra"),
    ("pose2d", "model.fit_aspect", MISSING, "fit_aspect of the network in the description is missing"),
  ],
)
def test_a_damaged_description_is_one_line(task, key, value, message, tmp_path, capsys):
  workdir = tmp_path / "run"
  change(task, key, value, workdir)
  assert hap(["evaluate", str(workdir)]) == 1
  error = capsys.readouterr().err.strip().splitlines()[-1]
  assert error.startswith("error: ")
  assert message in error


@pytest.mark.parametrize(
  ("task", "key", "value"),
  [
    ("text_reid", "model.text.width", 0),
    ("text_reid", "model.text.width", 10**6),
    ("pose2d", "model.num_joints", 10**7),
    ("pose2d", "model.head_channels", 5),
  ],
)
def test_the_arrays_decide_on_the_sizes_that_they_show(task, key, value, tmp_path):
  original = read.read(RUNS / task).description
  change(task, key, value, tmp_path / "run")
  assert read.read(tmp_path / "run").description.network == original.network


def change(task, key, value, workdir):
  """Copies a recorded run to `workdir`, and changes one value of its description."""
  shutil.copytree(RUNS / task, workdir)
  path = workdir / f"checkpoints/{record.LEFT_AT}/description/metadata"
  description = place = json.loads(path.read_text())
  *groups, last = key.split(".")
  for group in groups:
    place = place[group]
  if value is MISSING:
    del place[last]
  else:
    assert place[last] != value
    place[last] = value
  path.write_text(json.dumps(description))
