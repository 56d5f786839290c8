"""Each wrong configuration or flag is a one-line error that names the file or the key."""

import functools
import json
import math
import pathlib
import re
import subprocess
import sys

import pytest

from hap_jax import config as config_lib
from hap_jax import config_file, config_sources, config_values, run
from hap_jax.cli.__main__ import main
from hap_jax.models import vit
from hap_jax.train.optim import OptimizerSpec
from tests.recorded import record

ROOT = pathlib.Path(__file__).resolve().parents[1]
DEMO = "configs/pretrain_demo.py"
RECORDED = record.FOLDER / "2026-11-29"


@functools.cache
def demo(name="pretrain_demo"):
  return json.loads((ROOT / f"tests/resolved_configs/{name}.json").read_text())


def changed(key, value, name="pretrain_demo"):
  """Returns a recorded configuration (nested dicts) with one value replaced."""
  config = json.loads(json.dumps(demo(name)))
  *parents, last = key.split(".")
  functools.reduce(lambda group, parent: group[parent], parents, config)[last] = value
  return config


def error_of_main(*words):
  command = [sys.executable, "-m", "hap_jax.main", *words]
  result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
  assert result.returncode == 1, result.stdout + result.stderr
  assert len(result.stderr.strip().splitlines()) == 1, result.stderr
  return result.stderr.strip()


@pytest.mark.parametrize(
  ("words", "message"),
  [
    (["--config=no_such.py"], "error: --config=no_such.py: no such file"),
    (
      [f"--config={DEMO}", "--config.data.rot=x"],
      "error: --config.data.rot=x: no such key; nearest: config.data.root",
    ),
    ([f"--config={DEMO}", "--config.lr=1"], "error: --config.lr=1: no such key; nearest: config.base_lr"),
    (
      [f"--config={RECORDED / 'pretrain/config.json'}", "--noconfig.mask.bloks"],
      "error: --noconfig.mask.bloks: no such key; nearest: config.mask.blocks",
    ),
  ],
)
def test_a_wrong_file_or_key_is_a_one_line_error_with_the_nearest_name(words, message):
  assert error_of_main(*words) == message


def test_wrong_flags_are_reported_before_jax_is_imported():
  code = "import sys, hap_jax.main; sys.exit('jax' in sys.modules)"
  assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_a_recorded_configuration_is_accepted_by_the_training_command_with_overrides():
  words = [f"--config={RECORDED / 'reid/config.json'}", "--config.model.image_size=(32,16)", "--dry_run"]
  words += ["--config.total_steps=7", "--config.rerank", "--config.accumulate=1"]
  command = [sys.executable, "-m", "hap_jax.main", *words]
  result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
  assert result.returncode == 0, result.stderr
  assert "steps: 7" in result.stdout
  assert "rerank: true" in result.stdout
  assert "image (8, 32, 16, 3) uint8" in result.stdout


@pytest.fixture
def recorded_run(monkeypatch):
  monkeypatch.setattr(vit, "VARIANTS", dict(vit.VARIANTS))
  record.shrink(vit.VARIANTS)
  return RECORDED / "reid"


def error_of_evaluate(capsys, *words):
  assert main(["evaluate", *map(str, words)]) == 1
  error = capsys.readouterr().err
  assert len(error.splitlines()) == 1
  return error


def test_evaluation_names_the_nearest_key_and_file(recorded_run, capsys):
  config = f"--config={recorded_run / 'config.json'}"
  error = error_of_evaluate(capsys, recorded_run, config, "--set=batch_sise=8")
  assert "--set batch_sise=8: " in error
  assert "nearest: batch_size" in error
  error = error_of_evaluate(capsys, recorded_run, "--config=configs/finetune_reid_market.py")
  assert "no such file; nearest: configs/finetune_reid_market1501_b16.py" in error


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("[1]", r"config\.json is damaged: expected an object with keys such as task, found \[1\]"),
    ("3", r"config\.json is damaged: expected an object .* found 3"),
    ('{"task": ', r"config\.json is damaged \(Expecting value.*\)"),
    ("[" * 100_000, r"config\.json is damaged \("),
    ("\x00", r"config\.json is damaged \("),
  ],
)
def test_a_damaged_recorded_configuration_is_one_line_that_names_it(tmp_path, text, message):
  (tmp_path / "config.json").write_text(text)
  with pytest.raises(ValueError, match=message):
    config_lib.read_file(tmp_path / "config.json")
  with pytest.raises(ValueError, match=message + ".*: restore the file, or give another --workdir"):
    config_lib.check_same(config_lib.finalize(config_lib.from_recorded(demo(), "demo")), tmp_path)


@pytest.mark.parametrize(
  "value", [{}, {"model": 3}, {"task": 3}, {"task": "reid", "model": [], "data": {}}, 3]
)
def test_a_file_that_is_not_a_configuration_is_an_error_with_its_path(tmp_path, value):
  with pytest.raises(ValueError, match=r"^runs/x: (config\.\w+=|a configuration needs|expected a recorded)"):
    config_lib.from_recorded(value, "runs/x")


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("import ml_collections\ndef get_config(:\n", r"wrong\.py, line 2: SyntaxError: "),
    ("x = 1\n\nx.y\n", r"wrong\.py, line 3: AttributeError: 'int' object has no attribute 'y'"),
    ("def get_config():\n  return {}['lr']\n", r"wrong\.py, line 2: KeyError: 'lr'"),
    (
      "import no_such_package\n",
      r"wrong\.py, line 1: ModuleNotFoundError: No module named 'no_such_package'",
    ),
    (
      "def get_config():\n  raise OSError(1,\n    'a\\nb')\n",
      r"wrong\.py, line 2: PermissionError: \[Errno 1\] a b",
    ),
    ("config = 1\n", r"wrong\.py: expected a function get_config\(\), found none"),
    ("def get_config():\n  pass\n", r"wrong\.py: get_config\(\) returned NoneType, expected a ConfigDict"),
    (
      "def get_config(size):\n  pass\n",
      r"wrong\.py: get_config\(\) missing 1 required positional argument: 'size'",
    ),
    (
      "from ml_collections import ConfigDict\ndef get_config():\n  return ConfigDict({'task': 'reid'})\n",
      r"wrong\.py: config\.task='reid' needs config\.model, which is missing",
    ),
    ("\x00", r"wrong\.py.*null bytes"),
  ],
)
def test_wrong_code_in_a_configuration_is_a_one_line_error_with_its_line(
  tmp_path, monkeypatch, text, message
):
  monkeypatch.chdir(tmp_path)
  (tmp_path / "wrong.py").write_text(text)
  # The error must name the line for relative and for absolute paths.
  for path in (pathlib.Path("wrong.py"), tmp_path / "wrong.py"):
    with pytest.raises(ValueError, match=message) as error:
      config_lib.read_file(path)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


def test_a_configuration_file_may_take_an_argument(tmp_path):
  path = tmp_path / "sized.py"
  path.write_text("from configs import common\n\ndef get_config(size):\n  return common.pretrain(size)\n")
  assert config_lib.read_file(f"{path}:S").model.variant == "S"


def test_a_folder_or_a_file_with_another_ending_is_an_error(tmp_path):
  with pytest.raises(ValueError, match=r"a folder; expected a \.py or \.json file"):
    config_file.find(tmp_path)
  (tmp_path / "config.yaml").write_text("task: reid\n")
  with pytest.raises(
    ValueError, match=r"config\.yaml: expected a \.py file, or the \.json file that a run records"
  ):
    config_file.find(tmp_path / "config.yaml")


@pytest.mark.parametrize(
  ("name", "key", "value", "message"),
  [
    ("pretrain_demo", "optimizer.beta1", 2, r"=2: expected at least 0 and below 1, a finite number"),
    ("pretrain_demo", "optimizer.beta2", 1.0, r"=1\.0: expected at least 0 and below 1"),
    ("pretrain_demo", "optimizer.eps", 0.0, r"=0\.0: expected above 0"),
    ("pretrain_demo", "optimizer.momentum", 0.9, r": no such key; nearest: "),
    ("pretrain_demo", "optimizer.beta", 0.9, r": no such key; nearest: config\.optimizer\.beta1"),
    ("finetune_attributes_demo", "optimizer.clip_norm", -1.0, r"=-1\.0: expected above 0"),
    ("finetune_attributes_demo", "optimizer.clip_norm", None, r"=None: expected above 0"),
    ("pretrain_demo", "weight_decay", math.inf, r"=inf: expected at least 0, a finite number"),
    ("pretrain_demo", "weight_decay", math.nan, r"=nan: expected at least 0, a finite number"),
    ("pretrain_demo", "base_lr", 10**400, r"=1[0.]+: expected above 0, a finite number"),
    ("pretrain_demo", "warmup_epochs", -math.inf, r"=-inf: expected a finite number"),
    ("pretrain_demo", "total_epochs", math.inf, r"=inf: expected above 0, a finite number"),
    ("pretrain_demo", "align_temperature", math.nan, r"=nan: expected above 0"),
    ("finetune_attributes_demo", "final_lr", math.inf, r"=inf: expected at least 0"),
    ("finetune_reid_demo", "layer_decay", "0.5", r"='0\.5': expected above 0 and at most 1"),
    ("finetune_reid_demo", "id_weight", math.nan, r"=nan: expected at least 0"),
    ("pretrain_demo", "batch_size", "x", r"='x': expected at least 1, a whole number"),
    ("pretrain_demo", "batch_size", True, r"=True: expected at least 1, a whole number"),
    ("pretrain_demo", "seed", 2**64, r"=\d+: expected at least 0, a whole number"),
    ("pretrain_demo", "model.image_size", 3, r"=3: expected \(H, W\), each at least 1, a whole number"),
    ("pretrain_demo", "model", [1], r"=\(1,\): expected a group of keys"),
    ("pretrain_demo", "optimizer", 3, r"=3: expected a group of keys"),
    ("pretrain_demo", "mesh.data", "all", r"='all': expected a whole number"),
    ("pretrain_demo", "mesh.pipeline", 2, r": no such key"),
    ("pretrain_demo", "mask", [], r"=\(\): expected a group of keys, with config\.mask\.ratio"),
    ("pretrain_demo", "model.scan", 1, r"=1: expected True or False"),
    ("pretrain_demo", "data.root", 5, r"=5: expected text"),
  ],
)
def test_a_wrong_recorded_value_names_its_key(name, key, value, message):
  with pytest.raises(ValueError, match=rf"^(runs/x: )?config\.{re.escape(key)}{message}") as error:
    config_lib.finalize(config_lib.from_recorded(changed(key, value, name), "runs/x"))
  assert len(str(error.value)) < 300


@pytest.mark.parametrize("name", ["pretrain_demo", "finetune_reid_demo", "finetune_attributes_demo"])
def test_a_value_of_another_type_is_always_a_one_line_value_error(name):
  values = ("x", 10**400, None, [1], {"a": 1})
  for key in config_values.flatten(demo(name)):
    for value in values:
      try:
        config_lib.finalize(config_lib.from_recorded(changed(key, value, name), "runs/x"))
      except ValueError as error:
        if len(str(error).splitlines()) != 1:
          raise AssertionError(f"{key}={value!r}: more than one line") from error


def test_a_wrong_option_of_a_source_names_it():
  config = config_lib.finalize(config_lib.from_recorded(changed("data.synthetic.num_train", "x"), "runs/x"))
  with pytest.raises(
    ValueError, match=r"option num_train='x' of data/sources/synthetic\.py: expected a whole"
  ):
    config_sources.open_source(config, "train")
  config = config_lib.finalize(config_lib.from_recorded(changed("data.synthetic", 3), "runs/x"))
  with pytest.raises(ValueError, match=r"config\.data\.synthetic=3: expected a group of keys"):
    config_sources.open_source(config, "train")


def test_a_run_does_not_start_with_a_wrong_optimizer(tmp_path):
  config = config_lib.from_recorded(changed("optimizer.beta1", 2), "runs/x")
  with pytest.raises(ValueError, match=r"config\.optimizer\.beta1=2"):
    run.run(config_lib.finalize(config), tmp_path / "run")
  with pytest.raises(ValueError, match=r"config\.optimizer\.kind='lion'"):
    OptimizerSpec(kind="lion")


@pytest.mark.parametrize(
  ("name", "expected"),
  [
    ("lr", ("base_lr",)),
    ("data.rot", ("data.root",)),
    ("root", ("data.root", "probe.root")),
    ("batchsize", ("batch_size",)),
    (
      "image_size",
      ("model.image_size", "data.synthetic.image_size", "data.synthetic_captions.image_size"),
    ),
    ("optimizer.beta_1", ("optimizer.beta1",)),
    ("zzzz", ()),
  ],
)
def test_a_wrong_key_suggests_the_intended_keys(name, expected):
  assert set(config_values.nearest(name, config_values.flatten(demo()))) == set(expected)
