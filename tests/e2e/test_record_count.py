"""A run resumes only with the same number of training records as at its start."""

import json

import numpy as np
import pytest
from PIL import Image

from hap_jax import config as config_lib
from hap_jax import run as runner
from hap_jax.description import Description, Encoder
from hap_jax.tasks import pretrain as pretrain_task
from hap_jax.train import checkpoint
from tests.data import mutations_coco


def write_people(root, count):
  coco = mutations_coco.document()
  first = coco["annotations"][0]
  coco["annotations"] = [{**first, "id": i, "image_id": 1} for i in range(count)]
  (root / "people.json").write_text(json.dumps(coco))
  Image.new("RGB", (60, 80), (90, 120, 150)).save(root / "one.jpg")


def test_a_resume_with_another_number_of_records_is_an_error_with_both_numbers(tiny_config, tmp_path):
  data = {"data.source": "coco_persons", "data.coco_persons.annotations": "people.json", "data.num_val": 0}
  config, workdir = tiny_config(**data, data__root=str(tmp_path)), tmp_path / "run"
  write_people(tmp_path, 12)
  # The number is checked before the state is read, so a checkpoint without weights is enough for this test.
  config_lib.record(config, workdir)
  with checkpoint.Checkpoints(workdir, keep_last=1) as checkpoints:
    checkpoints.save(1, {"step": np.zeros(1)}, pretrain_task.make(config).description)
  for count in (11, 14):
    write_people(tmp_path, count)
    with pytest.raises(ValueError, match=rf"run: .* 12 training records .* now has {count}: .*workdir"):
      runner.run(config, workdir)
  write_people(tmp_path, 12)
  # With the old number, the run passes the check and fails later, at the missing weights.
  with pytest.raises(ValueError, match=r"checkpoint .* does not fit"):
    runner.run(config, workdir)


def described(**data):
  return Description("pretrain", Encoder(1, 1, 1, (1, 1), 1), data=data)


def test_a_checkpoint_without_a_recorded_number_resumes_with_any_number():
  now = described(name="luperson", licence="", records=7)
  runner.check_recorded(described(name="luperson", licence=""), now, "run")
  runner.check_recorded(described(), now, "run")
  runner.check_recorded(now, now, "run")
  with pytest.raises(ValueError, match="8 training records of luperson"):
    runner.check_recorded(described(name="luperson", records=8), now, "run")
