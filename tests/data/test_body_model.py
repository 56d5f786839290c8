"""Bodies in the layout of SMPL: a folder is read as it was written, and damage gives one clear error."""

import dataclasses
import json
import os
import re

import numpy as np
import pytest

from hap_jax.data import body_model
from tests import bodies

ALL = body_model.GENDERS
FOLDER_FILES = ["body.json", "regressors.npz", *(f"smpl_{gender}.npz" for gender in sorted(ALL))]
FIELDS = ("v_template", "shapedirs", "posedirs", "J_regressor", "weights", "parents", "faces")


@pytest.fixture
def folder(tmp_path):
  body_model.write_body_set(tmp_path / "body", bodies.random_set(genders=ALL))
  return tmp_path / "body"


def rewrite(path, **changes):
  """Replaces arrays of an .npz file. None removes an array."""
  with np.load(path) as file:
    arrays = {**file, **changes}
  np.savez(path, **{name: array for name, array in arrays.items() if array is not None})


def describe(folder, **changes):
  path = folder / "body.json"
  path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_body_is_read_as_it_was_written(folder):
  expected, found = bodies.random_set(genders=ALL), body_model.read_body_set(folder, need_h36m=True)
  assert sorted(os.listdir(folder)) == FOLDER_FILES
  assert (found.name, found.licence, found.one_for_all) == ("random", "Apache-2.0", False)
  assert found.digest == expected.digest
  assert re.fullmatch("[0-9a-f]{16}", found.digest)
  for name in ("joint_regressor", "h36m_regressor", "mirrored"):
    np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
  for gender in ALL:
    for field in FIELDS:
      array = getattr(found.of(gender), field)
      np.testing.assert_array_equal(array, getattr(expected.of(gender), field))
      assert array.dtype == (np.int32 if field in ("parents", "faces") else np.float32)
      assert array.flags.c_contiguous
  assert not np.array_equal(found.of("male").v_template, found.of("female").v_template)


def test_the_files_have_the_names_and_the_root_of_smpl(folder):
  with np.load(folder / "smpl_male.npz") as file:
    assert {*file.files} == {
      *("v_template", "shapedirs", "posedirs", "J_regressor", "weights", "kintree_table", "f")
    }
    assert file["kintree_table"][0, 0] == 2**32 - 1
    np.testing.assert_array_equal(file["kintree_table"][:, 1:], [bodies.PARENTS[1:], np.arange(1, 24)])


def test_one_body_for_all_is_used_for_every_gender(tmp_path):
  alone = bodies.random_set(one_for_all=True, h36m_regressor=None, mirrored=None)
  body_model.write_body_set(tmp_path / "body", alone)
  found = body_model.read_body_set(tmp_path / "body")
  assert found.of("male") is found.of("female") is found.of("neutral")
  assert found.h36m_regressor is None
  assert found.mirrored is None


def test_a_missing_gender_is_an_error_that_names_the_option():
  body_set = bodies.random_set(genders=("neutral", "female"))
  with pytest.raises(ValueError, match=r"no male model, only neutral, female: .*`hap body --male=FILE`"):
    body_set.of("male")
  with pytest.raises(ValueError, match="gender='child': expected one of neutral, male, female"):
    body_set.of("child")


def test_the_digest_depends_on_every_array_and_not_on_the_last_bits():
  def digest(**changes):
    body_set = bodies.random_set()
    body = dataclasses.replace(body_set.bodies["neutral"], **changes)
    return dataclasses.replace(body_set, bodies={"neutral": body}).digest

  body = bodies.random_body()
  rounded = {
    name: np.round(getattr(body, name), 5) for name in FIELDS if getattr(body, name).dtype == np.float32
  }
  base = digest(**rounded)
  assert digest(**{name: array + np.float32(1e-8) for name, array in rounded.items()}) == base
  for name, array in rounded.items():
    changed = array.copy()
    changed.flat[-1] += 1e-5
    assert digest(**{**rounded, name: changed}) != base, name
  assert digest(**rounded, faces=body.faces[::-1]) != base
  body_set = bodies.random_set()
  assert (
    dataclasses.replace(body_set, joint_regressor=body_set.joint_regressor[::-1]).digest != body_set.digest
  )
  assert dataclasses.replace(body_set, h36m_regressor=None).digest == body_set.digest
  # The other genders are not used in training, so they may be added later.
  several = bodies.random_set(genders=ALL)
  assert several.digest == body_set.digest
  assert len({several.digest_of(gender) for gender in ALL}) == 3


def test_the_error_for_a_missing_folder_names_the_download_and_the_conversion(tmp_path):
  cases = (tmp_path / "none", "no such folder"), (tmp_path, r"no file body\.json in this folder")
  for path, missing in cases:
    with pytest.raises(ValueError, match=rf"{re.escape(str(path))}: {missing}") as error:
      body_model.read_body_set(path)
    text = str(error.value)
    assert "\n" not in text
    for part in ("https://smpl.is.tue.mpg.de", "non-commercial", "hap body --neutral=FILE", "config.body"):
      assert part in text


def test_a_folder_without_the_h36m_regressor_is_refused_where_it_is_needed(tmp_path):
  body_model.write_body_set(tmp_path / "body", bodies.random_set(h36m_regressor=None))
  assert body_model.read_body_set(tmp_path / "body").h36m_regressor is None
  with pytest.raises(ValueError, match=r"3DPW needs: .*--regressors=DIR.*J_regressor_h36m_correct\.npy"):
    body_model.read_body_set(tmp_path / "body", need_h36m=True)


def test_an_existing_folder_is_not_overwritten(folder):
  with pytest.raises(ValueError, match="already exists"):
    body_model.write_body_set(folder, bodies.random_set())


def with_number(array, place, number):
  changed = array.copy()
  changed.flat[place] = number
  return changed


BODY = bodies.random_body()
SHORTER = bodies.random_body(39)
BAD_BODIES = {
  "shape": ({"posedirs": BODY.posedirs[:, :, :-1]}, r"posedirs has the shape \(40, 3, 206\), expected"),
  "vertices": ({"weights": SHORTER.weights}, r"weights has the shape \(39, 24\), expected \(40, 24\)"),
  "finite": (
    {"v_template": with_number(BODY.v_template, 3, np.nan)},
    "v_template has numbers that are",
  ),
  "sums": ({"weights": with_number(BODY.weights, 24, 2.0)}, "weights: row 1 has the sum 2.* expected 1"),
  "regressor": ({"J_regressor": 1.01 * BODY.J_regressor}, "J_regressor: row .* has the sum 1.01"),
  "parents": ({"parents": with_number(BODY.parents, 4, 4)}, "expected -1 for joint 0, and a lower joint"),
  "root": ({"parents": with_number(BODY.parents, 0, 0)}, "expected -1 for joint 0, and a lower joint"),
  "faces": (
    {"faces": with_number(BODY.faces, 7, 40)},
    "the faces use vertices 0 to 40, the",
  ),
  "type": ({"weights": BODY.weights.astype(np.float64)}, "weights has the type float64, expected float32"),
  "none": ({"v_template": BODY.v_template[:0]}, "v_template has no vertices"),
}


@pytest.mark.parametrize(("changes", "message"), BAD_BODIES.values(), ids=BAD_BODIES)
def test_arrays_that_do_not_fit_together_are_refused(tmp_path, changes, message):
  body = dataclasses.replace(BODY, **changes)
  with pytest.raises(ValueError, match=f"^it: .*{message}"):
    body_model.check_body(body, "it")
  with pytest.raises(ValueError, match=message):
    body_model.write_body_set(tmp_path / "body", bodies.random_set(bodies={"neutral": body}))
  assert not os.listdir(tmp_path)


TREE = np.stack([BODY.parents, np.arange(24)]).astype(np.uint32)  # -1 becomes 2^32 - 1, as in SMPL
BAD_FILES = {
  "missing": ("smpl_male.npz", {"weights": None}, "has no array weights"),
  "kind": ("smpl_male.npz", {"f": BODY.faces}, r"f\.npy has type <i4"),
  "faces": (
    "smpl_male.npz",
    {"f": np.full((3, 3), 2**32 - 1, np.uint32)},
    "the faces use vertices -1 to",
  ),
  "tree": ("smpl_male.npz", {"kintree_table": TREE[:, ::-1]}, "expected the parents of joints 0 to 23"),
  "joints": ("smpl_male.npz", {"kintree_table": TREE[:, :23]}, "expected the parents of joints 0 to 23"),
  "vertices": ("smpl_male.npz", body_model._to_smpl_arrays(SHORTER), "male body has 39 vertices"),
  "h36m": (
    "regressors.npz",
    {"h36m": np.full((17, 39), 1 / 39, np.float32)},
    "H36M joints has the shape",
  ),
  "rows": ("regressors.npz", {"h36m": np.full((14, 40), 1 / 40, np.float32)}, r"shape \(14, 40\), expected"),
  "joints_30": (
    "regressors.npz",
    {"joints_30": np.zeros((30, 40), np.float32)},
    "row 0 has the sum 0",
  ),
  "mirrored": ("regressors.npz", {"mirrored": np.zeros(40, np.int32)}, "not a table of vertex pairs"),
  "digest": (
    "smpl_male.npz",
    {"v_template": BODY.v_template + 1},
    "the arrays of the male body have the digest .* says",
  ),
  "pickle": ("smpl_male.npz", {"weights": np.array([{}])}, "not a file of `hap body`"),
}


@pytest.mark.parametrize(("file", "changes", "message"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_damaged_file_is_an_error_of_one_line_that_names_it(folder, file, changes, message):
  rewrite(folder / file, **changes)
  with pytest.raises(ValueError, match=message) as error:
    body_model.read_body_set(folder)
  assert str(error.value).startswith(str(folder))
  assert "\n" not in str(error.value)


def test_a_file_that_is_missing_or_cut_is_named(folder):
  path = folder / "smpl_female.npz"
  path.write_bytes(path.read_bytes()[:-200])
  with pytest.raises(ValueError, match=r"smpl_female\.npz: not a file of `hap body`: File is not a zip file"):
    body_model.read_body_set(folder)
  path.unlink()
  with pytest.raises(ValueError, match=r"smpl_female\.npz: no such file, but body\.json needs it"):
    body_model.read_body_set(folder)


BAD_DESCRIPTIONS = {
  "format": ({"format": 2}, "format 2, this version of hap_jax reads format 1"),
  "name": ({"name": "a\nb"}, r"has 'a\\nb' under name, expected one line"),
  "licence": ({"licence": ""}, "has '' under licence, expected one line"),
  "other file": (
    {"files": {"neutral": "../x.npz"}},
    "under files, expected some of",
  ),
  "no neutral": ({"files": {"male": "smpl_male.npz"}}, "under files, expected some of"),
  "list": ({"files": ["smpl_neutral.npz"]}, "under files, expected some of"),
  "flag": ({"one_for_all": "yes"}, "has 'yes' under one_for_all, expected 0 or 1"),
  "digests": ({"digests": 5}, "has 5 under digests, expected one of each of"),
}


@pytest.mark.parametrize(("changes", "message"), BAD_DESCRIPTIONS.values(), ids=BAD_DESCRIPTIONS)
def test_a_damaged_description_is_an_error_of_one_line_that_names_it(folder, changes, message):
  describe(folder, **changes)
  with pytest.raises(ValueError, match=message) as error:
    body_model.read_body_set(folder)
  assert str(error.value).startswith(str(folder / "body.json"))
  assert "\n" not in str(error.value)
