"""Workdirs and configurations of older versions can still be resumed, evaluated and described."""

import json
import pathlib
import shutil

import ml_collections
import numpy as np
import pytest
from PIL import Image

from hap_jax import config as config_lib
from hap_jax import config_sources, config_values
from hap_jax import run as runner
from hap_jax.cli.__main__ import main
from hap_jax.convert import read
from hap_jax.inference import scoring
from hap_jax.models import vit
from hap_jax.tasks import base
from hap_jax.train.report import read_metrics
from tests.recorded import record

RUNS = sorted(path.parent for path in record.FOLDER.glob("*/*/config.json"))
RESOLVED = sorted((record.FOLDER.parent / "resolved_configs").glob("*.json"))
OLDEST = RUNS[0].parent.name  # the names are dates
NAMES = [f"{run.parent.name}-{run.name}" for run in RUNS]
ALL_RUNS = pytest.mark.parametrize("run", RUNS, ids=NAMES)

# Keys that the first version did not record, in the order in which they were added. The value is the one that
# versions without the key used.
ADDED = {
  "data.coco_persons.images": "",
  "data.coco_persons.margin": 0.1,
  "data.coco_persons.min_keypoints": 1,
  "eval_every_epochs": 0,
  "probe.source": "",
  "probe.root": "",
  "data.msmt17.train_set": "train+val",
  "data.identity_folder.test_share": 0.5,
  "data.identity_folder.split_seed": 0,
  "data.synthetic.num_test": 2000,
  "accumulate": 1,
  "align_block": 0,
  "model.remat": "none",
  "model.attention": "xla",
  "data.augment": "host",
  "data.canvas": [400, 200],
  "data.folder.exif": "ignore",
  "data.identity_folder.exif": "ignore",
  "learned_ratio": 0.85,
  "continue_from": "",
}


@pytest.fixture(autouse=True)
def small_model(monkeypatch):
  monkeypatch.setattr(vit, "VARIANTS", dict(vit.VARIANTS))
  record.shrink(vit.VARIANTS)


def without(config, keys):
  """Returns nested dicts without these dotted keys and without the groups that become empty."""
  kept = {}
  for name, value in config.items():
    if isinstance(value, dict):
      inner = without(value, [key.partition(".")[2] for key in keys if key.startswith(f"{name}.")])
      if inner:
        kept[name] = inner
    elif name not in keys:
      kept[name] = value
  return kept


@pytest.fixture
def workdir(run, tmp_path):
  """Returns a copy of a recorded workdir without newer keys and without digests, as in older versions."""
  workdir = tmp_path / "run"
  # The runs in the repository must not change, so the test works on a copy.
  shutil.copytree(run, workdir)
  (workdir / "checkpoints/2/digests.json").unlink(missing_ok=True)
  for path in (workdir / "config.json", workdir / "checkpoints/2/description/metadata"):
    recorded = json.loads(path.read_text())
    holder = recorded.get("config", recorded)
    # num_test stays, because its default would draw 2000 pictures.
    shorter = without(holder, ADDED.keys() - {"data.synthetic.num_test"})
    assert shorter != holder
    path.write_text(json.dumps(recorded | {"config": shorter} if "config" in recorded else shorter))
  return workdir


@ALL_RUNS
def test_a_recorded_run_is_described_and_its_configuration_is_accepted(run, workdir, capsys):
  config = config_lib.finalize(record.config_of(run.name))
  for folder in (run, workdir):
    config_lib.check_same(config, folder)
    config_lib.check_same(config_lib.finalize(config_lib.read_file(folder / "config.json")), folder)
    assert main(["describe", str(folder)]) == 0
    scored = scoring.configure(folder, read.read(folder), None, {})
    recorded = config_values.flatten(json.loads((folder / "config.json").read_text()))
    exif = [f"data.{source}.exif" for source in ("folder", "identity_folder")]
    newest = {key: ADDED[key] for key in exif if key not in recorded}  # older runs do not have these two keys
    remat = "dots" if folder == run else ADDED["model.remat"]
    assert config_values.flatten(scored) == config_values.flatten(config) | newest | {"model.remat": remat}
  assert f"task {run.name}, step {record.LEFT_AT}" in capsys.readouterr().out


# Only the oldest run of one task resumes by default, because a step takes long to compile and the loop is the
# same for all tasks.
@pytest.mark.parametrize(
  "run",
  [
    pytest.param(run, marks=() if name == f"{OLDEST}-pretrain" else pytest.mark.soak, id=name)
    for run, name in zip(RUNS, NAMES, strict=True)
  ],
)
def test_a_recorded_run_can_be_resumed_and_evaluated(run, workdir, tmp_path):
  config = config_lib.finalize(record.config_of(run.name))
  assert main(["evaluate", str(workdir), f"--out={tmp_path / 'scores'}"]) == 0
  at_step_2 = json.loads((tmp_path / "scores/scores.json").read_text())["scores"]
  lines = []
  scores = runner.run(config, workdir, say=lines.append)
  assert f"resuming at step {record.LEFT_AT}" in lines
  assert scores.keys() == at_step_2.keys()
  end, row = json.loads((run / "end.json").read_text()), read_metrics(workdir)[-1]
  assert row["step"] == end["step"] == record.STEPS
  for key in end:
    # Scores are not compared, because with few pictures the last bit of a feature may change a rank.
    if "loss" in key:
      # Other versions of jax may round differently.
      np.testing.assert_allclose(row[key], end[key], rtol=1e-3, err_msg=key)


@ALL_RUNS
def test_a_recorded_configuration_is_completed_with_all_current_keys(run):
  """Fails if a new key of configs/common.py is missing in the table `_ADDED_KEYS` of config.py."""
  recorded = config_lib.finalize(config_lib.read_file(run / "config.json"))
  today = config_lib.finalize(record.config_of(run.name))
  assert config_values.flatten(recorded).keys() == config_values.flatten(today).keys()


@pytest.mark.parametrize("path", RESOLVED, ids=[path.stem for path in RESOLVED])
def test_a_configuration_without_newer_keys_equals_the_one_with_their_defaults(path, tmp_path):
  whole = json.loads(path.read_text())
  finalized = config_lib.finalize(config_lib.from_recorded(whole, path))
  for key, value in ADDED.items():
    shorter, expected = without(whole, [key]), config_values.flatten(whole)
    if key not in expected:
      continue
    expected[key] = value
    (tmp_path / "config.json").write_text(json.dumps(shorter))
    if key != "data.synthetic.num_test":  # demos set it to a value that no older version had
      config_lib.check_same(finalized, tmp_path)
    completed = config_lib.finalize(config_lib.read_file(tmp_path / "config.json"))
    assert config_values.flatten(config_lib.to_plain(completed)) == expected, key


def test_a_missing_key_is_compared_with_the_value_of_the_older_version(tmp_path):
  whole = config_lib.to_plain(config_lib.finalize(record.config_of("pretrain")))
  (tmp_path / "config.json").write_text(json.dumps(without(whole, ["accumulate"])))
  config = record.config_of("pretrain")
  config.accumulate = 2
  with pytest.raises(ValueError, match=r"config\.accumulate was 1, now 2"):
    config_lib.check_same(config_lib.finalize(config), tmp_path)


@pytest.mark.parametrize("source", ["folder", "identity_folder"])
def test_a_run_that_recorded_no_option_exif_goes_on_with_the_stored_pixels(source, tmp_path):
  config = record.config_of("reid")
  config.data.source = source
  whole = config_lib.to_plain(config_lib.finalize(config))
  assert whole["data"][source]["exif"] == "apply"  # the value of new runs is in their record
  path = tmp_path / "config.json"
  path.write_text(json.dumps(without(whole, [f"data.{source}.exif"])))
  resumed = config_lib.finalize(config_lib.read_file(path))
  assert resumed.data[source].exif == "ignore"
  config_lib.check_same(resumed, tmp_path)
  with pytest.raises(ValueError, match=rf"config\.data\.{source}\.exif was 'ignore', now 'apply'"):
    config_lib.check_same(config_lib.finalize(config), tmp_path)
  exif = Image.Exif()
  exif[0x0112] = 6
  (tmp_path / "pictures" / "anna").mkdir(parents=True)
  Image.new("RGB", (8, 16)).save(tmp_path / "pictures" / "anna" / "1.jpg", exif=exif)
  for now, shape in ((resumed, (16, 8, 3)), (config_lib.finalize(config), (8, 16, 3))):
    place = ml_collections.ConfigDict({"source": source, "root": str(tmp_path / "pictures")})
    opened = config_sources.open_source(now, "all" if source == "folder" else "train", place)
    assert opened[0]["image"].shape == shape
    description = base.description_of(now, opened, network={})
    assert description.data["exif"] == description.config["data"][source]["exif"] == now.data[source].exif


def test_options_of_unused_sources_may_differ(tmp_path):
  config = record.config_of("pretrain")
  config_lib.record(config_lib.finalize(config), tmp_path)
  config.data.luperson.subset = "all"
  config.data.coco_persons.margin = 0.5
  config_lib.check_same(config_lib.finalize(config), tmp_path)
  config.data.synthetic.num_train = 64
  with pytest.raises(ValueError, match=r"config\.data\.synthetic\.num_train was 48, now 64\. Resume"):
    config_lib.check_same(config_lib.finalize(config), tmp_path)


def test_the_options_of_the_probe_source_are_compared(tmp_path):
  config = record.config_of("pretrain")
  config.probe.source = "msmt17"
  config_lib.record(config_lib.finalize(config), tmp_path)
  config.data.msmt17.train_set = "train"
  with pytest.raises(ValueError, match=r"config\.data\.msmt17\.train_set was 'train\+val', now 'train'"):
    config_lib.check_same(config_lib.finalize(config), tmp_path)


@pytest.mark.parametrize("key", ["batch_size", "model.patch", "data.workers", "mask.ratio", "optimizer.kind"])
def test_a_missing_key_that_every_version_recorded_is_an_error(key, tmp_path):
  whole = config_lib.to_plain(config_lib.finalize(record.config_of("pretrain")))
  (tmp_path / "config.json").write_text(json.dumps(without(whole, [key])))
  with pytest.raises(ValueError, match=rf"config\.{key}, which is missing"):
    config_lib.finalize(config_lib.read_file(tmp_path / "config.json"))


def test_no_recorded_file_names_a_folder_of_the_machine():
  for run in RUNS:
    for path in run.rglob("*"):
      if path.is_file():
        assert str(pathlib.Path(__file__).parents[2]).encode() not in path.read_bytes(), path
