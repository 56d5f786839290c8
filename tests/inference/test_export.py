"""An exported encoder runs without this project, on any number of pictures, and records its licence."""

import json
import subprocess
import sys

import jax
import numpy as np
import pytest

import hap_jax
from hap_jax.cli.__main__ import main as hap
from hap_jax.inference import export
from hap_jax.pixels.normalize import normalize
from tests.convert.reference_state import GRID, family_state
from tests.io import torch_bytes


@pytest.fixture(scope="module")
def source(tmp_path_factory):
  """Returns the path of a pre-training file in the official format, with a small encoder."""
  path = tmp_path_factory.mktemp("source") / "weights.pth"
  path.write_bytes(torch_bytes.zip_file({"model": family_state("hap", width=128, depth=4), "arch": "vit"}))
  return path


@pytest.fixture(scope="module")
def own(source):
  """Returns the path of the same weights as a checkpoint of this project, which records grid and heads."""
  out = source.with_name("own")
  words = ["--from=hap", f"--source_grid={GRID[0]}x{GRID[1]}", "--num_heads=2", "--decoder_heads=2"]
  assert hap(["convert", str(source), f"--out={out}", *words]) == 0
  return out


@pytest.fixture(scope="module")
def exported(own):
  out = own.with_name("exported")
  assert hap(["export", str(own), f"--out={out}"]) == 0
  return out


def run_consumer(folder):
  # With -I, Python finds this project neither in the working directory nor through the environment.
  command = [sys.executable, "-I", str(folder / "run.py")]
  return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)


def test_the_exported_program_computes_the_stored_tokens_without_this_project(exported):
  assert len((exported / "run.py").read_text().splitlines()) < 30
  assert "hap_jax" not in (exported / "run.py").read_text().replace("but not hap_jax", "")
  done = run_consumer(exported)
  assert done.returncode == 0, done.stderr
  with np.load(exported / "test_batch.npz") as batch:
    assert f"tokens {batch['tokens'].shape} float32" in done.stdout


def test_the_exported_program_reports_changed_weights(exported, tmp_path):
  for path in exported.iterdir():
    (tmp_path / path.name).write_bytes(path.read_bytes())
  with np.load(tmp_path / "weights.npz") as file:
    weights = dict(file)
  # A change of 1 % in the last norm changes every token.
  weights["encoder/norm/scale"] = weights["encoder/norm/scale"] * 1.01
  np.savez(tmp_path / "weights.npz", **weights)
  done = run_consumer(tmp_path)
  assert done.returncode == 1
  assert "differ from the stored tokens" in done.stderr


def test_the_export_computes_the_same_tokens_as_load_for_any_batch_size(own, exported):
  model, variables, description = hap_jax.load(own)
  encoder = jax.export.deserialize(bytearray((exported / "encoder.jax_export").read_bytes()))
  with np.load(exported / "weights.npz") as file:
    weights = dict(file)
  assert set(encoder.platforms) == {"cpu", "cuda", "tpu"}
  for B in (1, 5):
    images = np.random.default_rng(B).integers(0, 256, (B, *description["model"]["image_size"], 3), np.uint8)
    want = np.asarray(jax.jit(model.apply)(variables, normalize(images)))
    np.testing.assert_allclose(np.asarray(encoder.call(weights, images)), want, rtol=1e-4, atol=1e-4)


def test_the_export_is_checked_on_the_cpu_for_any_default_device(own, tmp_path, monkeypatch):
  places = []

  def spy(function):
    def call(*args, **options):
      result = function(*args, **options)
      places.extend(array.devices() for array in jax.tree.leaves(result) if isinstance(array, jax.Array))
      return result

    return call

  monkeypatch.setattr(export.encoders, "build", spy(export.encoders.build))
  monkeypatch.setattr(export, "_run_program", spy(export._run_program))
  # Another default device stands for an accelerator, on which float32 products are less exact.
  with jax.default_device(jax.devices()[1]):
    export.export(own, tmp_path / "out")
  cpu = {jax.local_devices(backend="cpu")[0]}
  assert len(places) > 1
  assert all(place == cpu for place in places)


def test_export_asks_for_facts_that_the_file_does_not_record(source, exported, tmp_path, capsys):
  out = tmp_path / "out"
  capsys.readouterr()
  assert hap(["export", str(source), f"--out={out}", "--num_heads=2"]) == 1
  assert "--source_grid=HxW" in capsys.readouterr().err
  words = ["--from=hap", f"--source_grid={GRID[0]}x{GRID[1]}", "--num_heads=2"]
  assert hap(["export", str(source), f"--out={out}", *words]) == 0
  with np.load(out / "test_batch.npz") as got, np.load(exported / "test_batch.npz") as want:
    np.testing.assert_array_equal(got["tokens"], want["tokens"])


def test_the_export_records_licence_and_origin(exported):
  recorded = json.loads((exported / "description.json").read_text())
  assert recorded["export"]["relative_error"] <= 1e-4
  assert [origin["family"] for origin in recorded["lineage"]] == ["hap_jax", "hap"]
  assert recorded["licence"] in (exported / "README.md").read_text()


def test_a_failed_export_leaves_no_files_and_overwrites_none(own, exported, tmp_path, capsys, monkeypatch):
  capsys.readouterr()
  assert hap(["export", str(own), f"--out={exported}"]) == 1
  assert "exists" in capsys.readouterr().err
  assert hap(["export", str(own), f"--out={tmp_path / 'no' / 'where'}"]) == 1
  assert "there is no folder" in capsys.readouterr().err
  # No error is below -1, so the check of the exported program always fails.
  monkeypatch.setattr("hap_jax.inference.export.MAX_ERROR", -1.0)
  assert hap(["export", str(own), f"--out={tmp_path / 'out'}"]) == 1
  assert "computes different tokens than the checkpoint" in capsys.readouterr().err
  assert list(tmp_path.iterdir()) == []
