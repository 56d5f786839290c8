"""`hap body` writes a folder of plain arrays from SMPL's files, and prints what it wrote."""

import numpy as np
import pytest

from hap_jax.cli import __main__ as cli
from hap_jax.data import body_model
from tests import bodies
from tests.io.full_disk import files_end_at
from tests.smpl_files import H36M_ROWS, arrays_of, pickled, random_files

GENDERS = body_model.GENDERS


@pytest.fixture
def files(tmp_path):
  """Returns (BodySet, words of the command line) of three pickles and the regressors."""
  made, paths, regressors = random_files(tmp_path, genders=GENDERS)
  words = [f"--{gender}={paths[gender]}" for gender in GENDERS]
  return made, [*words, f"--regressors={regressors}"]


def error_of(capsys, *words):
  """Returns the error of a command that fails. It must be one line."""
  assert cli.main(["body", *words]) == 1
  printed = capsys.readouterr()
  assert printed.out == ""
  assert printed.err.startswith("error: ")
  assert printed.err.count("\n") == 1
  return printed.err


def test_three_pickles_become_a_folder_that_every_command_can_read(files, tmp_path, capsys):
  made, words = files
  out = tmp_path / "smpl"
  assert cli.main(["body", *words, f"--out={out}"]) == 0
  body_set = body_model.read_body_set(out, need_h36m=True)
  assert capsys.readouterr().out.splitlines() == [
    f"{out}: SMPL, neutral, male, female",
    "  12 vertices, 30 faces, 10 shape directions",
    "  regressors: 30 joints; 17 joints of Human3.6M",
    "  licence: Max Planck non-commercial research licence (SMPL), no redistribution",
    f"  digest: {body_set.digest}",
  ]
  for gender in GENDERS:
    np.testing.assert_array_equal(body_set.of(gender).v_template, made.of(gender).v_template)
  np.testing.assert_array_equal(body_set.h36m_regressor, made.joint_regressor[H36M_ROWS])


def test_a_body_of_smpls_size_needs_no_regressors_and_its_notes_are_printed(tmp_path, capsys):
  num_vertices = 6890
  rng = np.random.default_rng(0)
  arrays = {
    "v_template": rng.normal(size=(num_vertices, 3)),
    "shapedirs": rng.normal(size=(num_vertices, 3, 11)),
    "posedirs": np.zeros((num_vertices, 3, 207), np.float32),
    "J_regressor": np.full((24, num_vertices), 1 / num_vertices),
    "weights": np.eye(24)[rng.integers(24, size=num_vertices)],
    "kintree_table": arrays_of(bodies.random_body(1))["kintree_table"],
    "f": rng.integers(num_vertices, size=(13776, 3)).astype(np.uint32),
  }
  (tmp_path / "neutral.pkl").write_bytes(pickled(arrays))
  np.savez(tmp_path / "neutral.npz", **arrays)
  printed = []
  for kind in ("pkl", "npz"):
    path, out = tmp_path / f"neutral.{kind}", tmp_path / kind
    assert cli.main(["body", f"--neutral={path}", f"--out={out}"]) == 0
    printed.append(capsys.readouterr().out.replace(str(path), "FILE").replace(str(out), "OUT").splitlines())
  assert printed[0] == printed[1]
  assert printed[0][:3] == [
    "OUT: SMPL, neutral",
    "  6,890 vertices, 13,776 faces, 10 shape directions",
    "  regressors: 30 joints; no joints of Human3.6M (--regressors=DIR adds them; only the evaluation on "
    "3DPW needs them)",
  ]
  assert printed[0][-1] == "  note: FILE: used the first 10 of 11 shape directions"
  body_set = body_model.read_body_set(tmp_path / "pkl")
  assert body_set.joint_regressor[29, 411] == 1
  with pytest.raises(ValueError, match="has no male model"):
    body_set.of("male")


def test_a_full_disk_is_one_error_that_names_the_folder_and_leaves_nothing(files, tmp_path, capsys):
  _, words = files
  before = sorted(path.name for path in tmp_path.iterdir())
  with files_end_at(3000):
    assert f"{tmp_path / 'new'}" in error_of(capsys, *words, f"--out={tmp_path / 'new'}")
  assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_wrong_command_lines_are_one_clear_error(files, tmp_path, capsys):
  _, words = files
  new = f"--out={tmp_path / 'new'}"
  (tmp_path / "old").mkdir()
  assert "exists" in error_of(capsys, *words, f"--out={tmp_path / 'old'}")
  assert "there is no folder" in error_of(capsys, *words, f"--out={tmp_path / 'no' / 'new'}")
  assert "--neutral=FILE is missing" in error_of(capsys, *words[1:], new)
  assert "--neutral: has no effect with --synthetic" in error_of(capsys, *words, "--synthetic", new)
  assert "--regressors: has no effect" in error_of(capsys, words[-1], "--synthetic", new)
  assert "missing.pkl" in error_of(capsys, f"--neutral={tmp_path / 'missing.pkl'}", new)
  assert "--regressors=DIR is required" in error_of(capsys, *words[:3], new)
  assert not (tmp_path / "new").exists()
