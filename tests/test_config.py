"""Each configuration builds and resolves to its stored values, and each error names the wrong key."""

import concurrent.futures
import json
import pathlib
import subprocess
import sys
import threading

import pytest
from ml_collections import config_flags  # noqa: F401  (absl flags exist before configs are read)

from hap_jax import config as config_lib
from hap_jax import run

ROOT = pathlib.Path(__file__).resolve().parents[1]
RESOLVED = ROOT / "tests" / "resolved_configs"
CONFIGS = sorted(p.stem for p in (ROOT / "configs").glob("*_*.py"))


def load(name):
  import importlib

  return importlib.import_module(f"configs.{name}").get_config()


def run_main(*args):
  command = [sys.executable, "-m", "hap_jax.main", *args]
  return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.parametrize("name", CONFIGS)
def test_resolved_configurations_equal_the_stored_ones(name):
  """A changed default is visible in review. `python -m tests.test_config` stores the new values."""
  resolved = config_lib.to_plain(config_lib.finalize(load(name)))
  assert resolved == json.loads((RESOLVED / f"{name}.json").read_text())


@pytest.mark.parametrize("name", CONFIGS)
def test_dry_run_builds_every_configuration(name):
  lines = []
  run.dry_run(config_lib.finalize(load(name)), lines.append)
  size = config_lib.finalize(load(name)).model.image_size
  assert any(f"{size[0]}, {size[1]}, 3) uint8" in line for line in lines)


@pytest.mark.parametrize(
  ("key", "value", "message"),
  [
    ("model.image_size", (250, 128), r"250x128 is not a multiple of patch=16"),
    ("model.variant", "XL", r"config\.model\.variant='XL' is not one of Mu, Ti, S, B, L, H"),
    ("model.dtype", "int8", r"config\.model\.dtype='int8'"),
    ("batch_size", 0, r"config\.batch_size=0"),
    ("warmup_epochs", 500.0, r"config\.warmup_epochs=500\.0: expected from 0 to total_epochs=400\.0"),
    ("views", 1, r"config\.align_weight=0\.05 needs two views"),
    ("mask.ratio", 1.0, r"config\.mask\.ratio"),
    (
      "mask.part_policy",
      "sometimes",
      r"config\.mask\.part_policy='sometimes' is not one of uniform, released",
    ),
    ("data.source", "imagenet", r"no data/sources/imagenet\.py.*synthetic"),
    ("mesh.fsdp", 3, r"config\.mesh: .*fsdp=3.* do not multiply to the 8 devices"),
    ("mesh.data", 3, r"config\.mesh: data=3.* do not multiply to the 8 devices"),
    ("accumulate", 0, r"config\.accumulate=0"),
    ("model.remat", "some", r"config\.model\.remat='some'.*none or elementwise or dots or full"),
    ("batch_size", 100, r"config\.batch_size=100 does not divide over 8 devices.*96 or 104"),
    ("eval_batch_size", 6, r"config\.eval_batch_size=6 does not divide over 8 devices.*use 8"),
    ("data.flip_prob", 50, r"config\.data\.flip_prob=50\.0: expected from 0 to 1"),
    ("align_temperature", 0.0, r"config\.align_temperature=0\.0: expected above 0"),
    ("align_weight", -1.0, r"config\.align_weight=-1\.0"),
    ("eval_every_epochs", -1, r"config\.eval_every_epochs=-1"),
    ("weight_decay", -0.1, r"config\.weight_decay=-0\.1"),
    ("data.workers", -1, r"config\.data\.workers=-1"),
    ("data.max_bad_share", -0.1, r"config\.data\.max_bad_share=-0\.1"),
    ("model.patch", 0, r"model\.patch"),
    ("model.decoder_heads", 0, r"model\.decoder_width"),
    ("model.image_size", (64,), r"config\.model\.image_size=\(64,\): expected \(H, W\)"),
    ("baseline_records", 0, r"config\.baseline_records=0"),
    ("task", "dance", r"no tasks/dance\.py.*pretrain, reid"),
    ("task", "reid", r"config\.task='reid' needs config\.num_instances, which is missing"),
  ],
)
def test_a_wrong_value_names_its_key(key, value, message):
  config = load("pretrain_b16")
  config.update_from_flattened_dict({key: value})
  with pytest.raises(ValueError, match=message):
    run.dry_run(config_lib.finalize(config), lambda line: None)


def test_unknown_key_is_one_line_and_no_traceback():
  result = run_main("--config=configs/pretrain_demo.py", "--config.model.colour=3", "--dry_run")
  assert result.returncode != 0
  assert len(result.stderr.strip().splitlines()) == 1
  assert "colour" in result.stderr


def test_dry_run_prints_config_shapes_and_parameter_count():
  result = run_main("--config=configs/pretrain_b16.py", "--config.total_steps=10", "--dry_run")
  assert result.returncode == 0, result.stderr
  assert "base_lr: 0.00015" in result.stdout
  assert "111,8" in result.stdout  # in millions; the number includes the two fixed position tables
  assert "patches L=128, visible V=64, views N=2" in result.stdout


def test_missing_workdir_is_one_line():
  result = run_main("--config=configs/pretrain_demo.py")
  assert result.returncode != 0
  assert result.stderr.strip().splitlines() == [result.stderr.strip()]
  assert "--workdir" in result.stderr


if __name__ == "__main__":
  sys.path.insert(0, str(ROOT))
  RESOLVED.mkdir(exist_ok=True)
  for stem in CONFIGS:
    text = json.dumps(config_lib.to_plain(config_lib.finalize(load(stem))), indent=2)
    (RESOLVED / f"{stem}.json").write_text(text + "\n")


def test_processes_that_start_a_run_together_do_not_disturb_each_other(tmp_path):
  config = config_lib.finalize(load("pretrain_demo"))
  with concurrent.futures.ThreadPoolExecutor(16) as pool:
    # A race shows only sometimes, so the start is repeated.
    for run in range(20):
      begun = threading.Barrier(16)

      def record(_, begun=begun, workdir=tmp_path / str(run)):
        begun.wait()
        config_lib.record(config, workdir)

      list(pool.map(record, range(16)))  # raises the exception of a failed thread
      assert [path.name for path in (tmp_path / str(run)).iterdir()] == ["config.json"]
      config_lib.check_same(config, tmp_path / str(run))


def test_a_run_resumes_after_its_data_moved_but_not_with_another_model(tmp_path):
  config = load("finetune_attributes_pa100k_b16")
  config_lib.record(config_lib.finalize(config), tmp_path)
  # The place of the data may change. The source declares data.pa100k.images as a place, too.
  config.update_from_flattened_dict({"data.root": "/new", "data.pa100k.images": "/new/images"})
  config_lib.check_same(config_lib.finalize(config), tmp_path)
  config.model.variant = "S"
  with pytest.raises(ValueError, match=r"model\.variant"):
    config_lib.check_same(config_lib.finalize(config), tmp_path)
