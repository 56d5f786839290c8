"""SMPL's files become a body: pickles and .npz give the same arrays, and wrong files give one clear error."""

import dataclasses
import os

import numpy as np
import pytest

from hap_jax.convert import licences, smpl_files
from hap_jax.data import body_model
from tests import bodies
from tests.io.samples import Call
from tests.smpl_files import (
  H36M_ROWS,
  arrays_of,
  as_published,
  ch,
  csc,
  pickled,
  random_files,
  select_of,
)

V = 12
FIELDS = [field.name for field in dataclasses.fields(body_model.Body)]


def assert_same_body(got, want):
  for name in FIELDS:
    found, expected = getattr(got, name), getattr(want, name)
    np.testing.assert_array_equal(found, expected, err_msg=name)
    assert found.dtype == expected.dtype
    assert found.flags.c_contiguous


@pytest.fixture
def write(tmp_path):
  """Returns a function that writes the pickle of a random body. Its arguments replace arrays."""

  def write_file(name="neutral.pkl", seed=0, protocol=2, **changes):
    arrays = as_published(arrays_of(bodies.random_body(V, seed)))
    content = {**arrays, **changes}
    content = {name: value for name, value in content.items() if value is not None}
    (tmp_path / name).write_bytes(pickled(content, protocol))
    return tmp_path / name

  return write_file


def refuses(path, match, regressors=None):
  """Checks that a neutral body is refused with one line that names the file."""
  with pytest.raises(ValueError, match=match) as error:
    smpl_files.read({"neutral": path}, regressors)
  assert str(path) in str(error.value)
  assert "\n" not in str(error.value)


def test_pickles_of_three_genders_become_a_body(tmp_path):
  made, paths, folder = random_files(tmp_path, V, body_model.GENDERS)
  got, notes = smpl_files.read(paths, folder)
  assert notes == []
  assert list(got.bodies) == list(body_model.GENDERS)
  faces = made.of("neutral").faces
  for gender in body_model.GENDERS:
    assert_same_body(got.of(gender), dataclasses.replace(made.of(gender), faces=faces))
  np.testing.assert_array_equal(got.joint_regressor, made.joint_regressor)
  np.testing.assert_array_equal(got.h36m_regressor, made.joint_regressor[H36M_ROWS])
  assert got.h36m_regressor.flags.c_contiguous
  assert (got.name, got.one_for_all, got.mirrored) == ("SMPL", False, None)
  assert licences.classify(got.licence) == "research only"
  assert "no redistribution" in got.licence


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("root", [2**32 - 1, -1])
def test_an_npz_gives_the_same_body_as_the_pickle(tmp_path, save, root):
  _, paths, folder = random_files(tmp_path, V)
  arrays = arrays_of(bodies.random_body(V))
  arrays["kintree_table"] = arrays["kintree_table"].astype(np.int64)
  arrays["kintree_table"][0, 0] = root
  arrays["posedirs"] = np.asfortranarray(arrays["posedirs"])
  # Arrays of Python objects that nobody needs are not read.
  save(tmp_path / "neutral.npz", **arrays, part2num=np.array({"head": 1}, object))
  from_npz, notes = smpl_files.read({"neutral": tmp_path / "neutral.npz"}, folder)
  from_pickle, _ = smpl_files.read(paths, folder)
  assert notes == []
  assert_same_body(from_npz.of("neutral"), from_pickle.of("neutral"))
  assert from_npz.digest == from_pickle.digest


@pytest.mark.parametrize("protocol", [0, 2])
def test_the_first_ten_of_more_shape_directions_are_used_with_a_note(tmp_path, write, protocol):
  made, _, folder = random_files(tmp_path, V)
  path = write(protocol=protocol, shapedirs=ch(arrays_of(made.of("neutral"), 300)["shapedirs"]))
  got, notes = smpl_files.read({"neutral": path}, folder)
  assert_same_body(got.of("neutral"), made.of("neutral"))
  assert notes == [f"{path}: used the first 10 of 300 shape directions"]


BODY = arrays_of(bodies.random_body(V))
TREE = BODY["kintree_table"]


def with_value(array, place, value):
  array = array.copy()
  array[place] = value
  return array


@pytest.mark.parametrize(
  ("changes", "match"),
  [
    ({"weights": None, "f": None}, "no body of SMPL: it has no weights, f"),
    ({"weights": "text"}, "weights: expected an array of numbers, found a str"),
    ({"weights": BODY["weights"] * 2}, r"weights: row \d+ has the sum 2.0"),
    ({"weights": BODY["weights"][:, :23]}, r"weights has the shape \(12, 23\)"),
    ({"J_regressor": csc(BODY["J_regressor"][:, :11])}, "J_regressor has the shape"),
    ({"J_regressor": csc(BODY["J_regressor"] * 1.1)}, "J_regressor: row"),
    ({"J_regressor": np.ones((52, V)) / V}, r"has 52 joints; expected SMPL with 24"),
    ({"posedirs": np.zeros((V, 3, 459))}, "posedirs has the shape"),
    ({"shapedirs": np.zeros((V, 3, 9))}, "shapedirs has the shape"),
    ({"shapedirs": np.zeros((V, 30))}, "shapedirs is float64 of shape .* expected floats in 3 dimensions"),
    ({"shapedirs": select_of(np.zeros((V, 3, 10)), 0)}, "expected floats in 3 dimensions"),
    ({"v_template": np.zeros((V, 3), int)}, "v_template is int64 .* expected floats"),
    ({"v_template": with_value(BODY["v_template"], (3, 1), np.nan)}, "v_template has numbers .* not finite"),
    ({"v_template": with_value(BODY["v_template"], (3, 1), 1e300)}, "v_template has numbers .* not finite"),
    ({"v_template": np.zeros((0, 3))}, "no vertices"),
    ({"f": BODY["f"].astype(float)}, "expected whole numbers"),
    ({"f": with_value(BODY["f"], (2, 1), V)}, "faces use vertices"),
    ({"f": with_value(BODY["f"], (2, 1), 2**32 - 1)}, "f has vertex indices from 0 to 4294967295"),
    ({"kintree_table": TREE[:1]}, "kintree_table of shape"),
    ({"kintree_table": with_value(TREE, (1, 3), 4)}, "kintree_table of shape"),
    ({"kintree_table": with_value(TREE, (0, 0), 0)}, "row 0 of kintree_table"),
    ({"kintree_table": with_value(TREE, (0, 5), 2**32 - 1)}, "row 0 of kintree_table"),
    ({"kintree_table": with_value(TREE, (0, 5), 6)}, "a lower joint for every other joint"),
  ],
)
def test_arrays_that_are_no_body_are_an_error(write, changes, match):
  refuses(write(**changes), match)


def test_other_files_are_an_error(tmp_path, write):
  path = tmp_path / "body"
  for content, match in [
    (b"", "truncated or corrupt pickle"),
    (pickled([1, 2]), "no body of SMPL"),
    (b"PK\x03\x04" + bytes(50), r"not an \.npz file of SMPL"),
  ]:
    path.write_bytes(content)
    refuses(path, match)
  np.savez(tmp_path / "other.npz", a=np.zeros(3))
  refuses(tmp_path / "other.npz", r"no v_template, .*unpack a \.zip archive first")
  np.savez(tmp_path / "object.npz", **{**BODY, "J_regressor": np.array(None, object)})
  refuses(tmp_path / "object.npz", r"J_regressor\.npy has type \|O")
  refuses(tmp_path, "expected a regular file")
  with pytest.raises(OSError, match=r"missing\.pkl"):
    smpl_files.read({"neutral": tmp_path / "missing.pkl"})


def test_an_array_that_is_huge_when_unpacked_is_not_read(tmp_path, monkeypatch):
  monkeypatch.setattr(smpl_files, "_MAX_ELEMENTS", 200_000)
  np.savez_compressed(tmp_path / "bomb.npz", **{**BODY, "posedirs": np.zeros((400, 3, 207))})
  assert (tmp_path / "bomb.npz").stat().st_size < 200_000
  refuses(tmp_path / "bomb.npz", r"posedirs\.npy has .* bytes; expected at most 200,000 numbers")


def test_a_hostile_pickle_is_refused_and_not_run(tmp_path, write):
  proof = tmp_path / "ran"
  refuses(write(weights=Call(os.system, f"echo > {proof}")), r"asks for \w+\.system.*nothing was executed")
  refuses(write(more=Call(os.system, f"echo > {proof}")), r"asks for \w+\.system")
  assert not proof.exists()


def test_the_genders_must_have_one_mesh_and_be_different(tmp_path, write):
  _, paths, folder = random_files(tmp_path, V)
  faces = BODY["f"]
  tree = with_value(TREE, (0, 23), 20)
  other = arrays_of(bodies.random_body(V + 1, 5))
  for changes, match in [
    ({"f": faces[::-1].copy()}, "has other faces than"),
    ({"f": faces, "kintree_table": tree}, "has other parents than"),
    ({"f": faces, "v_template": BODY["v_template"]}, r"\(--male\) has the same vertices as .*\(--neutral\)"),
    (as_published(other), "has 13 vertices, and .*neutral.pkl has 12"),
  ]:
    male = write("male.pkl", seed=1, **changes)
    with pytest.raises(ValueError, match=match) as error:
      smpl_files.read({**paths, "male": male}, folder)
    assert str(male) in str(error.value)


@pytest.mark.filterwarnings("ignore:invalid escape sequence")
def test_damaged_files_give_a_body_or_one_clear_error(tmp_path, write):
  made, _, folder = random_files(tmp_path, V)
  np.savez_compressed(tmp_path / "packed.npz", **BODY)
  np.savez(tmp_path / "stored.npz", **BODY)
  good = [write(protocol=0), write("binary.pkl"), tmp_path / "packed.npz", tmp_path / "stored.npz"]
  good = [path.read_bytes() for path in good]
  path = tmp_path / "damaged"
  rng = np.random.default_rng(0)
  errors = []
  for trial in range(320):
    data = bytearray(good[trial % len(good)])
    for place in rng.integers(len(data), size=rng.integers(1, 40)):
      data[place] = rng.integers(256)
    if trial % 5 == 0:
      del data[rng.integers(len(data)) :]
    path.write_bytes(data)
    try:
      got, _ = smpl_files.read({"neutral": path}, folder)
    except ValueError as error:
      errors.append(str(error))
    else:
      assert got.of("neutral").v_template.shape == made.of("neutral").v_template.shape
  assert 200 < len(errors) < 320
  assert all(str(path) in error and "\n" not in error for error in errors)
