"""Sources of re-identification read tiny folders in each official layout, and real lines of lists."""

import pickle
import shutil

import numpy as np
import pytest
from PIL import Image

from hap_jax.data.sources import identity_folder, market1501, msmt17
from hap_jax.data.sources.base import BadRecordError


def write_pictures(root, paths):
  """Writes a small JPEG at each path. Each picture has a different grey."""
  for number, path in enumerate(paths):
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 16), (10 * number,) * 3).save(root / path, "JPEG")
  return root


def open_split(module, root, split, **options):
  return module.open_source(root=str(root), split=split, seed=0, **options)


def labels(source):
  return list(zip(source.columns["pid"].tolist(), source.columns["camid"].tolist(), strict=True))


MARKET = (
  "bounding_box_train/0002_c1s1_000451_03.jpg",
  "bounding_box_train/0002_c3s1_000551_01.jpg",
  "bounding_box_train/0007_c2s3_071052_01.jpg",
  "bounding_box_train/-1_c3s2_000000_00.jpg",
  "query/0001_c1s1_001051_00.jpg",
  "query/0005_c6s1_000401_00.jpg",
  "bounding_box_test/0000_c6s1_000001_01.jpg",
  "bounding_box_test/0001_c1s1_001051_02.jpg",
  "bounding_box_test/0001_c2s1_000301_00.jpg",
  "bounding_box_test/-1_c1s1_000401_03.jpg",
  "bounding_box_test/0005_c3s1_000301_00.jpg",
  "gt_bbox/unlike_any_rule.jpg",
)


@pytest.fixture
def market(tmp_path):
  # The name of this folder looks like person 3 by camera 2. The source must not use it.
  root = write_pictures(tmp_path / "run_3_c2", MARKET)
  (root / "query" / "Thumbs.db").write_bytes(b"not a picture")
  (root / "query" / "._0001_c1s1_001051_00.jpg").write_bytes(b"left by another system")
  return root


def test_market_names_give_person_and_camera(market):
  assert labels(open_split(market1501, market, "train")) == [(2, 0), (2, 2), (7, 1)]
  assert labels(open_split(market1501, market, "query")) == [(1, 0), (5, 5)]
  gallery = open_split(market1501, market, "gallery")
  assert labels(gallery) == [(0, 5), (1, 0), (1, 1), (5, 2)]
  assert gallery.name(3) == str(market / "bounding_box_test/0005_c3s1_000301_00.jpg")
  assert gallery.columns["pid"].dtype == gallery.columns["camid"].dtype == np.int32
  assert gallery.spec.skeleton is None


def test_record_has_picture_person_and_camera(market):
  source = open_split(market1501, market, "train")
  record = source[2]
  assert record.keys() == set(source.spec.fields) == {"image", "pid", "camid"}
  assert record["image"].shape == (16, 8, 3)
  assert np.abs(record["image"].astype(int) - 20).max() <= 1
  assert (record["pid"], record["camid"]) == (7, 1)
  copy = pickle.loads(pickle.dumps(source))
  np.testing.assert_array_equal(copy[2]["image"], record["image"])
  with pytest.raises(IndexError, match="record 3 of 3"):
    source[3]


def test_a_file_that_is_not_a_picture_is_a_bad_record(market):
  (market / MARKET[1]).write_bytes(b"short")
  with pytest.raises(BadRecordError, match="0002_c3s1_000551_01"):
    open_split(market1501, market, "train")[1]


@pytest.mark.parametrize(
  ("split", "found", "official"),
  [
    ("train", "3 pictures of 2", "12,936 of 751"),
    ("query", "2 pictures of 2", "3,368 of 750"),
    ("gallery", "4 pictures of 3", "15,913 of 751"),
  ],
)
def test_numbers_that_differ_from_the_official_ones_are_noted_and_logged(
  market, caplog, split, found, official
):
  with caplog.at_level("WARNING", logger="absl"):
    source = open_split(market1501, market, split)
  notes = [note for note in source.spec.notes if found in note and official in note]
  assert len(notes) == 1
  assert notes[0] in caplog.text


def test_official_numbers_are_not_noted(tmp_path, monkeypatch):
  monkeypatch.setitem(market1501._COUNTS, "train", (3, 2))
  write_pictures(tmp_path, MARKET)
  assert not any("official" in note for note in open_split(market1501, tmp_path, "train").spec.notes)


def test_persons_with_one_picture_and_queries_without_match_are_noted(market):
  assert any("1 of 2 training persons" in note for note in open_split(market1501, market, "train").spec.notes)
  assert not any("not scored" in note for note in open_split(market1501, market, "query").spec.notes)
  (market / "bounding_box_test/0001_c2s1_000301_00.jpg").unlink()  # only the camera of the query is left
  notes = open_split(market1501, market, "query").spec.notes
  assert any("1 of 2 query pictures are not scored" in note and "0001_c1s1" in note for note in notes)


def test_test_set_can_be_read_without_the_training_set(market):
  shutil.rmtree(market / "bounding_box_train")
  assert len(open_split(market1501, market, "gallery")) == 4
  with pytest.raises(ValueError, match=r"bounding_box_train: no such folder.*query/.*found there"):
    open_split(market1501, market, "train")


def test_person_in_training_and_test_set_is_an_error_except_person_0(market):
  write_pictures(market, ["bounding_box_train/0000_c1s1_000001_00.jpg"])
  assert len(open_split(market1501, market, "train")) == 4
  write_pictures(market, ["bounding_box_test/0007_c1s1_000001_00.jpg"])
  for split in ("train", "query"):
    with pytest.raises(ValueError, match=r"1 persons are in the training and in the test set \(7\).*msmt17"):
      open_split(market1501, market, split)


@pytest.mark.parametrize(
  ("name", "label"),
  [
    ("0008_c1s1_000451_03.jpg", (8, 0)),
    ("0008_c2_f0046985.jpg", (8, 1)),  # DukeMTMC
    ("0012_c15_0303morning_0008_0.jpg", (12, 14)),  # copies of MSMT17
    ("999999999_c6.jpg", (999_999_999, 5)),
  ],
)
def test_names_of_data_sets_in_market_layout_begin_with_person_and_camera(market, name, label):
  write_pictures(market, [f"bounding_box_train/{name}", "bounding_box_train/-1_c4s6_1.jpg"])
  assert labels(open_split(market1501, market, "train")) == sorted([(2, 0), (2, 2), (7, 1), label])


@pytest.mark.parametrize(
  "name",
  [
    *("cat.jpg", "0003_s1_000001_00.jpg", "0003_c0s1_000001_00.jpg", "-2_c1s1_0.jpg"),
    "001_1_c10_015833.png",  # LTCC: a field between person and camera
    "x0003_c1s1_000001_00.jpg",
    "1-0003_c1s1_0.jpg",
    "9876543210_c1.jpg",
    "0003_c1234567890.jpg",
    "\u0663_c1s1_0.jpg",  # a digit that is not ASCII
  ],
)
def test_error_for_a_name_without_person_and_camera_states_the_rule(market, name):
  write_pictures(market, [f"query/{name}"])
  with pytest.raises(ValueError, match=rf"query: 1 of 3 names .* {name}; expected .*0002_c1s1_000451_03"):
    open_split(market1501, market, "query")


def test_errors_for_wrong_and_empty_folders_list_the_names_found(market, tmp_path):
  with pytest.raises(ValueError, match=r"expected bounding_box_train/, query/.*found there: run_3_c2"):
    open_split(market1501, tmp_path, "train")
  for path in (market / "query").glob("*.jpg"):
    path.unlink()
  with pytest.raises(ValueError, match=r"query: no query pictures.*found there: .*Thumbs\.db"):
    open_split(market1501, market, "query")
  shutil.rmtree(market / "query")
  (market / "query").mkdir()
  with pytest.raises(ValueError, match="query: the folder is empty"):
    open_split(market1501, market, "query")
  with pytest.raises(ValueError, match=r"config\.data\.root is empty"):
    open_split(market1501, "", "query")


@pytest.mark.parametrize("module", [market1501, msmt17, identity_folder])
def test_unknown_split_is_an_error(market, module):
  with pytest.raises(ValueError, match=r"split='val'.*query"):
    open_split(module, market, "val")


MSMT = {
  "list_train.txt": (
    "0000/0000_000_01_0303morning_0008_0.jpg 0",
    "0001/0001_001_15_0302noon_0018_1_ex.jpg 1",
  ),
  "list_val.txt": ("0001/0001_002_02_0302afternoon_0020_10.jpg 1",),
  "list_query.txt": ("0000/0000_000_03_0303morning_0015_0.jpg 0",),
  "list_gallery.txt": ("0000/0000_001_04_0303morning_0019_2.jpg 0", "0001/0001_000_05_0303noon_0019_2.jpg 1"),
}


@pytest.fixture(params=[("train", "test"), ("mask_train_v2", "mask_test_v2")], ids=["V1", "V2"])
def msmt(tmp_path, request):
  for name, lines in MSMT.items():
    folder = request.param[0 if name in ("list_train.txt", "list_val.txt") else 1]
    write_pictures(tmp_path, [f"{folder}/{line.split()[0]}" for line in lines])
    (tmp_path / name).write_text("".join(f"{line}\n" for line in lines))
  return tmp_path


def test_msmt_lists_are_read_in_both_versions(msmt):
  train = open_split(msmt17, msmt, "train")
  assert labels(train) == [(0, 0), (1, 14), (1, 1)]
  assert labels(open_split(msmt17, msmt, "train", train_set="train")) == [(0, 0), (1, 14)]
  assert labels(open_split(msmt17, msmt, "query")) == [(0, 2)]
  assert labels(open_split(msmt17, msmt, "gallery")) == [(0, 3), (1, 4)]
  assert train[1]["image"].shape == (16, 8, 3)
  assert any("train+val" in note and "32,621 of 1,041" in note for note in train.spec.notes)


def test_msmt_copy_in_market_layout_may_use_a_number_in_training_and_test(market):
  write_pictures(
    market, ["bounding_box_train/0012_c15_0303noon.jpg", "bounding_box_test/0012_c03_0303noon.jpg"]
  )
  assert labels(open_split(msmt17, market, "train")) == [(2, 0), (2, 2), (7, 1), (12, 14)]
  assert labels(open_split(msmt17, market, "gallery"))[-1] == (12, 2)


@pytest.mark.parametrize("name", ["train", "val", "query", "gallery"])
def test_lines_of_the_official_lists_are_read(samples, tmp_path, name):
  for path in (samples / "reid" / "msmt17").glob("*.txt"):
    shutil.copy(path, tmp_path)
    folder = "train" if path.stem in ("list_train", "list_val") else "test"
    write_pictures(tmp_path, [f"{folder}/{line.split()[0]}" for line in path.read_text().splitlines()])
  lines = (tmp_path / f"list_{name}.txt").read_text().splitlines()
  split = "train" if name == "val" else name
  source = open_split(msmt17, tmp_path, split, **({"train_set": "train"} if name == "train" else {}))
  rows = slice(-len(lines), None)  # train+val ends with the validation list
  assert source.columns["pid"][rows].tolist() == [int(line.split()[1]) for line in lines]
  assert source.columns["camid"][rows].tolist() == [int(line.split("_")[2]) - 1 for line in lines]
  folder = "train" if split == "train" else "test"
  assert source.name(len(source) - 1) == str(tmp_path / folder / lines[-1].split()[0])


def test_official_market_names_are_read(samples, tmp_path):
  lines = (samples / "reid" / "market1501" / "train.txt").read_text().split("\n")[:24]
  paths = sorted(line.split()[0] for line in lines)
  for path in paths:
    write_pictures(tmp_path, [path])
  source = open_split(market1501, tmp_path, "train")
  assert [source.name(i) for i in range(len(source))] == [str(tmp_path / path) for path in paths]
  file_names = [path.split("/")[1] for path in paths]
  assert labels(source) == [(int(name[:4]), int(name[6]) - 1) for name in file_names]


@pytest.mark.parametrize(
  "line",
  [
    "0000/0000_000_01_0303morning_0008_0.jpg",
    "0000/0000_000_01_0303morning_0008_0.jpg 1",
    "0000/0000_000_00_0303morning_0008_0.jpg 0",
    "0000/picture.jpg 0",
  ],
)
def test_msmt_line_without_person_and_camera_is_an_error(msmt, line):
  with open(msmt / "list_train.txt", "a") as file:
    file.write(line + "\n")
  with pytest.raises(ValueError, match=rf"list_train\.txt: line 3 is '{line}'; expected"):
    open_split(msmt17, msmt, "train")


def test_errors_name_missing_files_and_folders_of_msmt(msmt):
  (msmt / "list_val.txt").unlink()
  assert len(open_split(msmt17, msmt, "train", train_set="train")) == 2
  with pytest.raises(ValueError, match=r"list_val\.txt: no such file"):
    open_split(msmt17, msmt, "train")
  with pytest.raises(ValueError, match="train_set='val'"):
    open_split(msmt17, msmt, "train", train_set="val")
  (msmt / "list_query.txt").write_text("")
  with pytest.raises(ValueError, match=r"list_query\.txt: the list is empty"):
    open_split(msmt17, msmt, "query")
  (msmt / "list_query.txt").unlink()
  with pytest.raises(ValueError, match=r"expected list_query\.txt.* or query/.*found there: list_gallery"):
    open_split(msmt17, msmt, "query")
  folder = next(msmt.glob("*test*"))
  next(folder.rglob("0000_001*.jpg")).unlink()
  with pytest.raises(ValueError, match=r"1 of its 2 pictures are missing .*0000_001_04_0303morning_0019_2"):
    open_split(msmt17, msmt, "gallery")
  shutil.rmtree(folder)
  with pytest.raises(
    ValueError, match=r"no folder of pictures; expected either test/ \(V1\) or mask_test_v2/"
  ):
    open_split(msmt17, msmt, "gallery")


def test_error_counts_missing_msmt_pictures_and_names_the_first_five(msmt):
  lines = [f"{k:04d}/{k:04d}_001_04_0303morning_0019_2.jpg {k}" for k in range(9)]
  with open(msmt / "list_gallery.txt", "w") as file:
    file.writelines(f"{line}\n" for line in lines)
  with pytest.raises(ValueError, match=r"8 of its 9 pictures are missing") as error:  # the first one exists
    open_split(msmt17, msmt, "query")
  shown = [line.split()[0] for line in lines if line.split()[0] in str(error.value)]
  assert shown == [line.split()[0] for line in lines[1:6]]
  assert str(msmt / "list_gallery.txt") in str(error.value)


def test_persons_in_given_splits_are_numbered_over_all_splits(tmp_path):
  write_pictures(
    tmp_path,
    [
      *("train/dora/1.jpg", "train/dora/2.jpg", "query/anna/x_c2_1.png", "query/bert/a.jpg"),
      *("gallery/anna/x_c7.jpg", "gallery/anna/b.jpg", "gallery/carl/c.webp", "notes/of/mine.jpg"),
    ],
  )
  assert labels(open_split(identity_folder, tmp_path, "query")) == [(0, 2), (1, 10)]
  assert labels(open_split(identity_folder, tmp_path, "gallery")) == [(0, 11), (0, 7), (2, 12)]
  assert open_split(identity_folder, tmp_path, "train").columns["pid"].tolist() == [3, 3]
  notes = open_split(identity_folder, tmp_path, "query").spec.notes
  assert any("1 of 2 query pictures are not scored" in note and "bert" in note for note in notes)
  write_pictures(tmp_path, ["train/carl/1.jpg"])
  with pytest.raises(ValueError, match=r"in the training and in the test set \(carl\)"):
    open_split(identity_folder, tmp_path, "gallery")


def test_the_case_of_the_camera_in_a_name_does_not_matter(tmp_path):
  write_pictures(tmp_path, ["train/anna/ANNA_C2.JPG", "train/anna/anna_c2_b.jpg", "train/anna/IMG_C12S1.JPG"])
  train = open_split(identity_folder, tmp_path, "train")
  assert labels(train) == [(0, 2), (0, 12), (0, 2)]
  assert train.spec.notes == ()


def test_names_of_which_only_some_give_a_camera_are_a_warning(tmp_path, caplog):
  write_pictures(tmp_path, ["query/anna/1.jpg", "gallery/anna/2.jpg", "gallery/bert/3.jpg"])
  assert open_split(identity_folder, tmp_path, "gallery").spec.notes == ()  # no name gives a camera
  write_pictures(tmp_path, ["gallery/anna/x_c2.jpg"])
  caplog.clear()
  for split in ("query", "gallery"):
    (note,) = open_split(identity_folder, tmp_path, split).spec.notes
    assert note.startswith("3 of 4 file names contain no camera (_c2), but all others do.")
    assert note.endswith("(query/anna/1.jpg, gallery/anna/2.jpg, gallery/bert/3.jpg)")
  assert [record.getMessage() for record in caplog.records] == [f"identity_folder: {note}"] * 2


def test_files_that_an_identity_folder_leaves_out_are_counted(tmp_path):
  write_pictures(tmp_path, ["train/anna/1.jpg", "train/anna/2.jpg", "train/bert/1.jpg", "train/bert/2.jpg"])
  for name in ("anna/3.tif", "bert/3.gif", "bert/4.TIF", "bert/notes.txt"):
    (tmp_path / "train" / name).touch()
  (tmp_path / "train" / "bert" / "5.jpg").symlink_to("nowhere")
  (note,) = open_split(identity_folder, tmp_path, "train").spec.notes
  assert note.startswith("4 files left out: 1 .gif, 2 .tif, 1 link to nothing; convert pictures to JPEG")
  (tmp_path / "train" / "carl").mkdir()
  (tmp_path / "train" / "carl" / "1.jfif").touch()
  with pytest.raises(ValueError, match=r"carl: no pictures; .*; 1 file left out: 1 \.jfif; convert"):
    open_split(identity_folder, tmp_path, "train")


def test_pictures_of_an_identity_folder_are_turned_unless_exif_is_ignore(tmp_path):
  exif = Image.Exif()
  exif[0x0112] = 6
  (tmp_path / "train" / "anna").mkdir(parents=True)
  for name in ("1", "2"):
    Image.new("RGB", (8, 16)).save(tmp_path / "train" / "anna" / f"{name}.jpg", exif=exif)
  for options, shape in (({}, (8, 16, 3)), ({"exif": "apply"}, (8, 16, 3)), ({"exif": "ignore"}, (16, 8, 3))):
    source = open_split(identity_folder, tmp_path, "train", **options)
    assert source[1]["image"].shape == shape
    assert source.spec.exif == options.get("exif", "apply")
  with pytest.raises(ValueError, match=r"config\.data\.identity_folder\.exif='': expected"):
    open_split(identity_folder, tmp_path, "train", exif="")


def test_data_sets_with_annotations_keep_the_stored_pixels(tmp_path):
  write_pictures(tmp_path, MARKET)
  exif = Image.Exif()
  exif[0x0112] = 6
  source = open_split(market1501, tmp_path, "query")
  Image.new("RGB", (8, 16)).save(source.name(0), exif=exif)
  assert source[0]["image"].shape == (16, 8, 3)
  assert source.spec.exif == "ignore"


PERSONS = [f"{name}/{i}.jpg" for name in "abcdefg" for i in range(3)] + ["h/0.jpg"]


def test_splits_of_identity_folders_share_no_person_and_ignore_the_seed_of_the_run(tmp_path):
  write_pictures(tmp_path, PERSONS)
  splits = {split: open_split(identity_folder, tmp_path, split) for split in ("train", "query", "gallery")}
  names = [source.name(i) for source in splits.values() for i in range(len(source))]
  assert sorted(names) == sorted(str(tmp_path / path) for path in PERSONS)
  tested = set(splits["gallery"].columns["pid"].tolist())
  assert len(tested) == 4
  assert not tested & set(splits["train"].columns["pid"].tolist())
  query = splits["query"].columns["pid"].tolist()
  assert sorted(query) == sorted(set(query)) == sorted(tested - {7})  # h has one picture
  camids = np.concatenate([splits["query"].columns["camid"], splits["gallery"].columns["camid"]])
  assert len(set(camids.tolist())) == len(camids)  # the names have no cameras, so each picture has its own
  again = identity_folder.open_source(root=str(tmp_path), split="query", seed=5)
  np.testing.assert_array_equal(again.paths, splits["query"].paths)
  others = [
    open_split(identity_folder, tmp_path, "train", split_seed=seed).columns["pid"].tolist()
    for seed in range(5)
  ]
  assert len({tuple(pids) for pids in others}) > 1


def test_test_share_is_the_share_of_persons_in_the_test_set(tmp_path):
  write_pictures(tmp_path, PERSONS)
  counts = {
    share: len(set(open_split(identity_folder, tmp_path, "train", test_share=share).columns["pid"].tolist()))
    for share in (0, 0.25, 0.75)
  }
  assert counts == {0: 8, 0.25: 6, 0.75: 2}
  assert len(open_split(identity_folder, tmp_path, "gallery", test_share=1)) == 15
  with pytest.raises(ValueError, match=r"no train pictures.*'train': 0.*test_share=1"):
    open_split(identity_folder, tmp_path, "train", test_share=1)
  with pytest.raises(ValueError, match=r"no query pictures.*'query': 0"):
    open_split(identity_folder, tmp_path, "query", test_share=0)
  with pytest.raises(ValueError, match=r"test_share=2"):
    open_split(identity_folder, tmp_path, "query", test_share=2)


def test_folders_without_persons_or_pictures_are_errors(tmp_path):
  write_pictures(tmp_path, ["a.jpg"])
  with pytest.raises(ValueError, match=r"no folders of persons.*found there: a\.jpg"):
    open_split(identity_folder, tmp_path, "gallery")
  write_pictures(tmp_path, PERSONS)
  (tmp_path / "zoe").mkdir()
  with pytest.raises(ValueError, match="zoe: no pictures; expected pictures of one person"):
    open_split(identity_folder, tmp_path, "gallery")
  write_pictures(tmp_path, ["train/anna/1.jpg"])
  with pytest.raises(ValueError, match="gallery: no such folder; found there: a"):
    open_split(identity_folder, tmp_path, "gallery")
  (tmp_path / "gallery").mkdir()
  with pytest.raises(ValueError, match=r"no gallery pictures.*add pictures to gallery/"):
    open_split(identity_folder, tmp_path, "gallery")
