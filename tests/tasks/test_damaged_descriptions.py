"""A description with a wrong or a missing size of the network is one line, in every task that reads it."""

import json
import shutil

import pytest

from hap_jax.cli.__main__ import main as hap
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
    ("text_reid", "model.text", {}, "has the sizes {}, expected depth, hidden"),
    ("text_reid", "model.text.width", 0, "expected whole numbers from 1"),
    ("text_reid", "model.text.width", 10**6, "its description does not fit its arrays"),
    ("text_reid", "model.text_digest", "../../other", "expected true or false, and hexadecimal digits"),
    ("text_reid", "model.text_is_trained", MISSING, "text_is_trained=None"),
    ("text_reid", "model.max_tokens", 10**9, "max_tokens=1000000000, expected 1 to 8"),
    ("text_reid", "model.pooling", "sum", "pooling of the network in the description is 'sum'"),
    ("pose2d", "model.codec", MISSING, "codec of the network in the description is missing"),
    ("pose2d", "model.codec", 5, "is 5, expected udp or msra"),
    ("pose2d", "model.num_joints", 10**7, "predicts 10000000 joints (coco17), data set synthetic has 17"),
    ("pose2d", "model.head_channels", 5, "head_channels of the network in the description is 5"),
    ("pose2d", "model.fit_aspect", MISSING, "fit_aspect of the network in the description is missing"),
  ],
)
def test_a_damaged_description_is_one_line(task, key, value, message, tmp_path, capsys):
  workdir = tmp_path / "run"
  shutil.copytree(RUNS / task, workdir)
  path = workdir / f"checkpoints/{record.LEFT_AT}/description/metadata"
  description = place = json.loads(path.read_text())
  *groups, last = key.split(".")
  for group in groups:
    place = place[group]
  if value is MISSING:
    del place[last]
  else:
    place[last] = value
  path.write_text(json.dumps(description))
  assert hap(["evaluate", str(workdir)]) == 1
  error = capsys.readouterr().err.strip().splitlines()[-1]
  assert error.startswith("error: ")
  assert message in error
  assert hap(["describe", str(workdir)]) == 0
