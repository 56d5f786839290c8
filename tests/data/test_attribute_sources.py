"""Sources of pedestrian attributes read tiny files in each official format, and real annotations."""

import pickle
import sys
import types

import numpy as np
import pytest
import scipy.io
from PIL import Image

from hap_jax.data import attribute_images
from hap_jax.data.sources import pa100k, peta, rapv1
from hap_jax.data.sources.base import BadRecordError

MODULES = {"pa100k": pa100k, "rapv1": rapv1, "peta": peta}
OFFICIAL_PETA_EXTRAS = [f"extra{i}" for i in range(70)]


def cell(texts):
  """Returns a column cell of strings, as MATLAB writes it."""
  array = np.empty((len(texts), 1), object)
  array[:, 0] = texts
  return array


def labels_of(n, names, seed=0):
  return np.random.default_rng(seed).integers(0, 2, (n, len(names)))


def in_file_order(names):
  """Returns the names in the order of the file, which differs from the order of the classifier."""
  return sorted(names)


def draws(**members):
  """Returns five divisions into splits. All divisions except the first are reversed."""
  array = np.empty((5, 1), object)
  for i in range(5):
    array[i, 0] = {
      name: value if i == 0 else value.reshape(-1)[::-1].reshape(value.shape)
      for name, value in members.items()
    }
  return array


def write_pa100k(root, images="{:06d}.jpg"):
  names = in_file_order(pa100k.ATTRIBUTES)
  labels = labels_of(10, names)
  rows = {"train": slice(0, 6), "val": slice(6, 8), "test": slice(8, 10)}
  files = [images.format(i + 1) for i in range(10)]
  variables = {"attributes": cell(names)}
  for split, part in rows.items():
    variables[f"{split}_images_name"] = cell(files[part])
    variables[f"{split}_label"] = labels[part].astype(np.uint8)
  scipy.io.savemat(root / "annotation.mat", variables)
  write_pictures(root / "data", files)
  return variables


def write_rap(root, **changes):
  names = [*in_file_order(rapv1.ATTRIBUTES), "occlusionLeft", "up-Black"]
  labels = labels_of(10, names).astype(np.int32)
  labels[3, names.index("Female")] = 2
  files = [f"CAM01_frame{i}_line1.png" for i in range(10)]
  struct = {
    "partion": draws(
      train_index=np.array([[8, 1, 2, 3, 5, 6, 7]], np.uint16), test_index=np.array([[4, 9, 10]], np.uint16)
    ),
    "label": labels,
    "attribute_eng": cell(names),
    "imagesname": cell(files),
    "identity": np.array([[5, 5, -1, 7, 7, 8, 9, 10, 11, 11]], np.int16).T,
  }
  struct = {key: value for key, value in (struct | changes).items() if value is not None}
  (root / "RAP_annotation").mkdir(parents=True)
  scipy.io.savemat(root / "RAP_annotation" / "RAP_annotation.mat", {"RAP_annotation": struct})
  write_pictures(root / "RAP_dataset", files)
  return struct


def write_peta(root, persons=(1, 1, 2, 2, 3, 3, 4, 5, 6, 7), **changes):
  names = [*in_file_order(peta.ATTRIBUTES), *OFFICIAL_PETA_EXTRAS]
  meta = np.stack([np.arange(1, 11), persons, np.ones(10, int), np.arange(10)], 1)
  column = np.array([[2], [1], [5], [10], [7]], np.uint16)
  struct = {
    "data": np.concatenate([meta, labels_of(10, names)], 1).astype(np.uint16),
    "attribute": cell(names),
    "selected_attribute": np.arange(5, 40, dtype=np.uint8)[None],
    "partion_attribute": draws(
      train=column, val=np.array([[9]], np.uint16), test=np.array([[3], [4], [6], [8]], np.uint16)
    ),
  } | changes
  scipy.io.savemat(root / "PETA.mat", {"peta": struct})
  write_pictures(root / "images", [f"{i:05d}.png" for i in range(1, 11)])
  return struct


def write_pictures(folder, names):
  folder.mkdir(parents=True)
  for number, name in enumerate(names):
    Image.new("RGB", (4, 8), (20 * number,) * 3).save(folder / name)


WRITERS = {"pa100k": write_pa100k, "rapv1": write_rap, "peta": write_peta}


def open_split(name, root, split="train", **options):
  return MODULES[name].open_source(root=str(root), split=split, seed=0, **options)


def stems(source):
  return [source.name(i).rsplit("/", 1)[1].rsplit(".", 1)[0] for i in range(len(source))]


def test_lists_of_attributes_have_the_official_length_and_order():
  assert [len(set(module.ATTRIBUTES)) for module in MODULES.values()] == [26, 51, 35]
  assert pa100k.ATTRIBUTES[:3] == ("Hat", "Glasses", "ShortSleeve")
  assert pa100k.ATTRIBUTES[-4:] == ("Female", "Front", "Side", "Back")
  assert rapv1.ATTRIBUTES[0] == "hs-BaldHead"
  assert rapv1.ATTRIBUTES[33:36] == (
    "attach-Other",
    "AgeLess16",
    "Age17-30",
  )
  assert peta.ATTRIBUTES[:2] == ("accessoryHat", "accessoryMuffler")
  assert peta.ATTRIBUTES[-1] == "personalMale"


def test_pa100k_splits_follow_each_other_and_columns_are_found_by_name(tmp_path):
  variables = write_pa100k(tmp_path)
  order = [in_file_order(pa100k.ATTRIBUTES).index(name) for name in pa100k.ATTRIBUTES]
  for split, count in (("train", 6), ("val", 2), ("test", 2)):
    source = open_split("pa100k", tmp_path, split)
    assert len(source) == count
    assert source.columns["attributes"].dtype == bool
    assert source.spec.labels["attributes"] == pa100k.ATTRIBUTES
    np.testing.assert_array_equal(source.columns["attributes"], variables[f"{split}_label"][:, order])
  assert stems(open_split("pa100k", tmp_path, "trainval")) == [f"{i:06d}" for i in range(1, 9)]


def test_rap_uses_the_first_division_and_reads_uncertain_as_absent(tmp_path):
  struct = write_rap(tmp_path)
  train, test = (open_split("rapv1", tmp_path, split) for split in ("train", "test"))
  assert stems(train) == [f"CAM01_frame{i}_line1" for i in (7, 0, 1, 2, 4, 5, 6)]
  assert stems(open_split("rapv1", tmp_path, "trainval")) == stems(train)
  names = in_file_order(rapv1.ATTRIBUTES)
  want = struct["label"][[3, 8, 9]][:, [names.index(name) for name in rapv1.ATTRIBUTES]] == 1
  np.testing.assert_array_equal(test.columns["attributes"], want)
  assert not test.columns["attributes"][0, rapv1.ATTRIBUTES.index("Female")]
  assert any("1 labels are 2" in note for note in test.spec.notes)
  with pytest.raises(ValueError, match=r"split='val': rapv1 has train, test, trainval; it has no validation"):
    open_split("rapv1", tmp_path, "val")


def test_peta_skips_the_first_four_columns_and_trainval_is_train_then_val(tmp_path):
  struct = write_peta(tmp_path)
  source = open_split("peta", tmp_path, "trainval")
  assert stems(source) == ["00002", "00001", "00005", "00010", "00007", "00009"]
  names = in_file_order(peta.ATTRIBUTES)
  columns = [4 + names.index(name) for name in peta.ATTRIBUTES]
  np.testing.assert_array_equal(source.columns["attributes"], struct["data"][[1, 0, 4, 9, 6, 8]][:, columns])


@pytest.mark.parametrize("name", MODULES)
def test_record_has_the_picture_and_its_attributes(name, tmp_path):
  WRITERS[name](tmp_path)
  source = pickle.loads(pickle.dumps(open_split(name, tmp_path, "test")))
  record = source[1]
  assert record.keys() == set(source.spec.fields)
  assert record["image"].shape == (8, 4, 3)
  assert record["image"].dtype == np.uint8
  np.testing.assert_array_equal(record["attributes"], source.columns["attributes"][1])
  with pytest.raises(IndexError):
    source[len(source)]


@pytest.mark.parametrize("mode", ["P", "RGBA", "L"])
def test_picture_of_any_mode_is_read_as_rgb(mode, tmp_path):
  write_peta(tmp_path)
  colour = Image.new("RGB", (4, 8), (250, 100, 0))
  colour.convert(mode).save(tmp_path / "images" / "00003.png")
  image = open_split("peta", tmp_path, "test")[0]["image"]
  np.testing.assert_array_equal(image, np.asarray(colour.convert(mode).convert("RGB")))


def test_broken_picture_is_a_bad_record(tmp_path):
  write_peta(tmp_path)
  (tmp_path / "images" / "00003.png").write_bytes(b"short")
  with pytest.raises(BadRecordError, match=r"00003\.png"):
    open_split("peta", tmp_path, "test")[0]


def test_note_on_the_standard_split_counts_test_pictures_of_training_persons(tmp_path):
  write_peta(tmp_path)  # test pictures 3, 4, 6, 8 show persons 2, 2, 3, 5; training persons are 1, 3, 4, 6, 7
  (note,) = (note for note in open_split("peta", tmp_path, "test").spec.notes if "standard split" in note)
  assert "1 of 4 test pictures" in note
  (tmp_path / "pa").mkdir()
  write_pa100k(tmp_path / "pa")
  notes = open_split("pa100k", tmp_path / "pa", "test").spec.notes
  assert any("no ids of persons" in note for note in notes)


def persons_of(source, persons):
  return {persons[int(stem) - 1] for stem in stems(source)}


def test_identity_disjoint_split_depends_on_its_seed_and_has_all_pictures_and_a_note(tmp_path):
  persons = (1, 1, 2, 2, 3, 3, 4, 5, 6, 7)
  write_peta(tmp_path, persons)
  found = {}
  for seed in (0, 0, 1):
    sources = {
      split: open_split("peta", tmp_path, split, identity_disjoint=True, split_seed=seed)
      for split in ("train", "val", "test", "trainval")
    }
    people = {split: persons_of(source, persons) for split, source in sources.items()}
    assert not people["trainval"] & people["test"]
    assert not people["train"] & people["val"]
    assert sorted(stems(sources["trainval"]) + stems(sources["test"])) == [f"{i:05d}" for i in range(1, 11)]
    assert all("not the official splits" in " ".join(source.spec.notes) for source in sources.values())
    assert seed not in found or found[seed] == stems(sources["test"])
    found[seed] = stems(sources["test"])
  assert found[0] != found[1]


def test_identity_disjoint_split_leaves_out_persons_without_a_number(tmp_path):
  write_rap(tmp_path)
  sources = [open_split("rapv1", tmp_path, split, identity_disjoint=True) for split in ("train", "test")]
  names = stems(sources[0]) + stems(sources[1])
  assert len(names) == 9
  assert "CAM01_frame2_line1" not in names
  assert any("1 pictures of persons without an id are left out" in note for note in sources[0].spec.notes)


def test_identity_disjoint_split_needs_numbers_of_persons(tmp_path):
  write_pa100k(tmp_path)
  with pytest.raises(ValueError, match=r"pa100k\.identity_disjoint: .*annotation\.mat does not state who"):
    open_split("pa100k", tmp_path, identity_disjoint=True)
  rap = tmp_path / "rap"
  write_rap(rap, identity=None)
  with pytest.raises(ValueError, match="does not state who"):
    open_split("rapv1", rap, identity_disjoint=True)


def test_identity_split_of_many_persons_keeps_the_official_shares():
  pids = np.random.default_rng(0).integers(0, 8_699, 19_000)
  rows = {name: np.arange(count) for name, count in (("train", 9_500), ("val", 1_900), ("test", 7_600))}
  found = attribute_images.Annotations("PETA.mat", [], np.empty((0, 0)), [], rows, pids)
  divided, _ = attribute_images._divide_persons(peta._DATA_SET, found, 0)
  for name, count in (("train", 9_500), ("val", 1_900), ("test", 7_600)):
    assert abs(len(divided[name]) - count) <= 10


class EasyDict(dict):
  """A dict whose items are also attributes. Its pickle equals the pickle of the real EasyDict."""

  def __init__(self, **items):
    for key, value in items.items():
      self[key] = value
      setattr(self, key, value)


EasyDict.__module__, EasyDict.__qualname__ = "easydict", "EasyDict"


def write_pickle(path, monkeypatch, protocol=4, **content):
  module = types.ModuleType("easydict")
  module.EasyDict = EasyDict
  monkeypatch.setitem(sys.modules, "easydict", module)
  path.write_bytes(pickle.dumps(EasyDict(**content), protocol))
  monkeypatch.delitem(sys.modules, "easydict")


def as_pickle(name, root, monkeypatch, protocol):
  """Replaces a data set's .mat file by the pickle that the official code makes from it."""
  module, path = MODULES[name], next(root.rglob("*.mat"))
  found = module._read_mat(str(path))
  path.unlink()
  rows = {split: [part] * 5 if name != "pa100k" else part for split, part in found.rows.items()}
  if name == "rapv1":
    rows = {"trainval": rows["train"], "test": rows["test"]}
  write_pickle(
    root / "dataset_all.pkl",
    monkeypatch,
    protocol,
    image_name=found.images,
    label=found.labels,
    attr_name=found.names,
    label_idx=EasyDict(eval=list(range(len(module.ATTRIBUTES)))),
    partition=EasyDict(**rows),
  )


@pytest.mark.parametrize(("name", "protocol"), [("pa100k", 2), ("rapv1", 3), ("peta", 4)])
def test_pickle_of_the_official_code_gives_the_same_records(name, protocol, tmp_path, monkeypatch):
  WRITERS[name](tmp_path)
  splits = ("trainval", "test")
  want = [open_split(name, tmp_path, split) for split in splits]
  as_pickle(name, tmp_path, monkeypatch, protocol)
  for split, source in zip(splits, want, strict=True):
    got = open_split(name, tmp_path, split)
    assert stems(got) == stems(source)
    np.testing.assert_array_equal(got.columns["attributes"], source.columns["attributes"])
  assert "easydict" not in sys.modules
  with pytest.raises(ValueError, match="does not state who"):
    open_split(name, tmp_path, identity_disjoint=True)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickle_of_peta_with_a_range_gives_the_same_records(protocol, tmp_path, monkeypatch):
  write_peta(tmp_path)
  found = peta._read_mat(str(tmp_path / "PETA.mat"))
  want = {split: open_split("peta", tmp_path, split) for split in ("trainval", "test")}
  (tmp_path / "PETA.mat").unlink()
  write_pickle(
    tmp_path / "dataset_all.pkl",
    monkeypatch,
    protocol,
    image_name=found.images,
    label=found.labels,
    attr_name=found.names,
    # The ranges are as in the file that users of the official code share.
    label_idx=EasyDict(eval=list(range(35)), color=list(range(35, 79)), extra=range(79, 105)),
    partition=EasyDict(**{split: [part] * 5 for split, part in found.rows.items()}),
  )
  for split, source in want.items():
    got = open_split("peta", tmp_path, split)
    assert stems(got) == stems(source)
    np.testing.assert_array_equal(got.columns["attributes"], source.columns["attributes"])


def test_pickle_with_ranges_as_splits_is_read(tmp_path, monkeypatch):
  write_pa100k(tmp_path)
  found = pa100k._read_mat(str(tmp_path / "annotation.mat"))
  (tmp_path / "annotation.mat").unlink()
  content = {"image_name": found.images, "label": found.labels.tolist(), "attr_name": found.names}
  splits = {"train": range(6), "val": [range(6, 8)] * 5, "test": range(8, 10)}
  write_pickle(tmp_path / "dataset_all.pkl", monkeypatch, **content, partition=EasyDict(**splits))
  assert len(open_split("pa100k", tmp_path)) == 6
  assert stems(open_split("pa100k", tmp_path, "val")) == ["000007", "000008"]


@pytest.mark.parametrize("key", ["label", "image_name", "attr_name"])
def test_pickle_with_a_list_that_repeats_a_range_is_an_error(key, tmp_path, monkeypatch):
  rows = {split: [] for split in ("train", "val", "test")}
  content = {"image_name": ["1.jpg"], "label": np.zeros((1, 1)), "attr_name": ["Hat"], "partition": rows}
  write_pickle(tmp_path / "dataset_all.pkl", monkeypatch, **content | {key: [range(1_000_000)] * 1000})
  with pytest.raises(
    ValueError, match=rf"dataset_all\.pkl: {key}: expected an array: the nested lists have more than"
  ):
    open_split("pa100k", tmp_path)


def test_error_for_a_pickle_with_missing_keys_lists_the_keys_found(tmp_path, monkeypatch):
  write_pa100k(tmp_path)
  (tmp_path / "annotation.mat").unlink()
  write_pickle(tmp_path / "dataset_all.pkl", monkeypatch, image_name=["a.jpg"], attributes=["Hat"])
  with pytest.raises(ValueError, match=r"no label, attr_name, partition.*found image_name, attributes"):
    open_split("pa100k", tmp_path)


def test_missing_pictures_are_counted_and_the_first_is_named(tmp_path):
  write_peta(tmp_path)
  for number in (5, 7):
    (tmp_path / "images" / f"{number:05d}.png").unlink()
  with pytest.raises(ValueError, match=r"2 of 5 pictures listed in .*PETA\.mat are missing.*00005\.png"):
    open_split("peta", tmp_path)
  assert len(open_split("peta", tmp_path, "test")) == 4


def test_error_for_a_missing_field_lists_the_fields_found(tmp_path):
  write_rap(tmp_path, partion=None, partition=np.ones((1, 3)))
  with pytest.raises(ValueError, match=r"RAP_annotation: no partion; .*found label, .*partition"):
    open_split("rapv1", tmp_path)
  scipy.io.savemat(tmp_path / "PETA.mat", {"annotations": np.ones(3)})
  with pytest.raises(ValueError, match=r"PETA\.mat: no peta; expected peta, found annotations"):
    open_split("peta", tmp_path)


def test_version_2_of_rap_is_an_error(tmp_path):
  (tmp_path / "RAP_annotation").mkdir()
  struct = dict.fromkeys(
    ("name", "attribute", "data", "selected_attribute", "partition_attribute"), np.ones((1, 1))
  )
  scipy.io.savemat(tmp_path / "RAP_annotation" / "RAP_annotation.mat", {"RAP_annotation": struct})
  with pytest.raises(ValueError, match="RAP, version 2"):
    open_split("rapv1", tmp_path)


def test_wrong_number_of_labels_and_wrong_names_are_errors(tmp_path):
  struct = write_peta(tmp_path)
  scipy.io.savemat(tmp_path / "PETA.mat", {"peta": struct | {"data": struct["data"][:, :-1]}})
  with pytest.raises(ValueError, match=r"data has 108 columns; expected 4, and one for each of the 105"):
    open_split("peta", tmp_path)
  renamed = struct["attribute"].copy()
  renamed[0, 0] = "hat"
  scipy.io.savemat(tmp_path / "PETA.mat", {"peta": struct | {"attribute": renamed}})
  with pytest.raises(
    ValueError, match=r"35 scored attributes .* repeated: accessoryHat; found 105 names: hat"
  ):
    open_split("peta", tmp_path)


def test_answers_and_rows_out_of_range_are_errors(tmp_path):
  variables = write_pa100k(tmp_path)
  labels = variables["train_label"].copy()
  labels[0, 0] = 3
  scipy.io.savemat(tmp_path / "annotation.mat", variables | {"train_label": labels})
  with pytest.raises(ValueError, match="labels 0, 1, 3; expected 0, 1 or 2"):
    open_split("pa100k", tmp_path)
  scipy.io.savemat(tmp_path / "annotation.mat", variables | {"train_label": labels[:5]})
  with pytest.raises(ValueError, match=r"train_label has the shape \(5, 26\); expected \(6, 26\)"):
    open_split("pa100k", tmp_path)
  scipy.io.savemat(tmp_path / "annotation.mat", variables | {"test_images_name": cell(["", "000010.jpg"])})
  with pytest.raises(ValueError, match=r"test_images_name: element 1 of 2 is not a text"):
    open_split("pa100k", tmp_path)


@pytest.mark.parametrize(
  ("index", "match"),
  [(11, "list picture 11, counted from 1; expected 1 to 10"), (4, "twice in one split or in two splits")],
)
def test_splits_that_overlap_or_name_pictures_outside_the_file_are_errors(tmp_path, index, match):
  write_rap(
    tmp_path,
    partion=draws(train_index=np.array([[1, 2, index]], np.uint16), test_index=np.array([[4, 9]], np.uint16)),
  )
  with pytest.raises(ValueError, match=match):
    open_split("rapv1", tmp_path)


def test_errors_for_missing_files_and_wrong_options_name_the_key_to_change(tmp_path):
  (tmp_path / "readme.txt").write_text("nothing else")
  with pytest.raises(ValueError, match=r"none of annotation\.mat, .*dataset_all\.pkl.*found there: readme"):
    open_split("pa100k", tmp_path)
  write_pa100k(tmp_path)
  with pytest.raises(ValueError, match=r"no folder faces; .*config\.data\.pa100k\.images"):
    open_split("pa100k", tmp_path, images="faces")
  (tmp_path / "annotation.mat").write_bytes(b"MATLAB 5.0 cut short")
  with pytest.raises(ValueError, match=r"annotation\.mat: no readable \.mat file"):
    open_split("pa100k", tmp_path)


def test_annotations_and_pictures_may_be_in_other_places(tmp_path):
  write_peta(tmp_path)
  (tmp_path / "PETA.mat").rename(tmp_path / "other.mat")
  (tmp_path / "images").rename(tmp_path / "png")
  assert len(open_split("peta", tmp_path, annotations="other.mat", images=str(tmp_path / "png"))) == 5


REAL = {
  "pa100k": ("pa100k/annotation.mat", {"train": 12, "val": 6, "test": 6}),
  "rapv1": ("rap/RAP_annotation.mat", {"train": 19, "test": 5}),
  "peta": ("peta/PETA.mat", {"train": 26, "val": 1, "test": 21}),
}


@pytest.mark.parametrize("name", MODULES)
def test_real_annotations_are_read(name, samples, tmp_path):
  path, counts = REAL[name]
  path = samples / "attributes" / path
  found = MODULES[name]._read_mat(str(path))
  write_pictures(tmp_path / "pictures", found.images)
  for split, count in counts.items():
    source = open_split(name, tmp_path, split, annotations=str(path), images="pictures")
    assert len(source) == count
    assert source.columns["attributes"].any()
  first = {"pa100k": "000001", "rapv1": found.images[23][:-4], "peta": "00031"}
  assert stems(open_split(name, tmp_path, annotations=str(path), images="pictures"))[0] == first[name]


def test_four_uncertain_answers_of_the_real_rap_are_read_as_absent(samples, tmp_path):
  path = samples / "attributes" / "rap" / "RAP_annotation.mat"
  found = rapv1._read_mat(str(path))
  write_pictures(tmp_path / "RAP_dataset", found.images)
  source = open_split("rapv1", tmp_path, annotations=str(path))
  assert any("4 labels are 2" in note for note in source.spec.notes)
  female = source.columns["attributes"][:, rapv1.ATTRIBUTES.index("Female")]
  np.testing.assert_array_equal(female, found.labels[found.rows["train"], 0] == 1)
