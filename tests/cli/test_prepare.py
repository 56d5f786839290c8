"""`hap prepare synthetic`: the sources of its data layouts read the same people that were drawn."""

import csv
import json
import re

import numpy as np
import pytest

from hap_jax.cli import __main__ as cli
from hap_jax.data.sources import coco_persons, cuhk_pedes, market1501, synthetic, synthetic_captions, tfds
from hap_jax.synthetic import export

SIZE = (64, 32)
COUNTS = {"num_train": 24, "num_val": 8, "num_test": 16}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  out = tmp_path_factory.mktemp("prepare") / "people"
  counts = [f"--{name}={count}" for name, count in COUNTS.items()]
  words = ["prepare", "synthetic", f"--out={out}", "--seed=4", *counts, "--image_size=64x32", "--workers=0"]
  assert cli.main(words) == 0
  return out


def drawn(split):
  return synthetic.open_source(split=split, seed=4, image_size=SIZE, **COUNTS)


def read_json(path):
  return json.loads(path.read_text(encoding="utf-8"))


def test_prepare_writes_the_files_of_every_layout_and_no_others(folder):
  wanted = {"README.txt", "annotations", "attributes.csv", "reid_raw.json", *export.FOLDERS.values()}
  assert {path.name for path in folder.iterdir()} == wanted
  assert [path.name for path in folder.parent.iterdir()] == ["people"]
  readme = (folder / "README.txt").read_text(encoding="utf-8")
  for fact in ("seed 4", "64x32", "24 pictures to train on", "Apache-2.0", "nobody in these pictures exists"):
    assert fact in readme


@pytest.mark.parametrize("split", ["train", "query", "gallery"])
def test_market1501_reads_the_same_persons_cameras_and_pictures(folder, split):
  source, wanted = market1501.open_source(root=str(folder), split=split, seed=0), drawn(split)
  assert len(source) == len(wanted)
  order = [int(source.name(k).split("_")[-2]) for k in range(len(source))]  # names sort by camera
  np.testing.assert_array_equal(source.columns["camid"], wanted.columns["camid"][order])
  # The layout may number persons differently, but the numbering must be one-to-one.
  pairs = set(zip(source.columns["pid"].tolist(), wanted.columns["pid"][order].tolist(), strict=True))
  assert len(pairs) == len({number for number, _ in pairs}) == len(np.unique(wanted.columns["pid"]))
  for k in (0, len(wanted) - 1):
    # The files are JPEG, so the pixels are close but not equal.
    difference = np.abs(source[k]["image"].astype(int) - wanted[order[k]]["image"])
    assert difference.mean() < 2
    assert difference.max() < 40


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_cuhk_pedes_reads_the_same_captions_and_pictures(folder, split):
  source = cuhk_pedes.open_source(root=str(folder), split=split, seed=0, drop_ids=())
  wanted = synthetic_captions.open_source(split=split, seed=4, image_size=SIZE, **COUNTS)
  assert len(source) == len(wanted)
  pairs, drawn_pairs = (
    sorted(zip(one.columns["caption"], one.columns["pid"].tolist(), strict=True)) for one in (source, wanted)
  )
  assert [caption for caption, _ in pairs] == [caption for caption, _ in drawn_pairs]
  # The layout numbers persons differently, but the numbering must be one-to-one.
  numbers = {(one, other) for (_, one), (_, other) in zip(pairs, drawn_pairs, strict=True)}
  assert len(numbers) == len({one for one, _ in numbers}) == len(np.unique(wanted.columns["pid"]))
  difference = np.abs(source[0]["image"].astype(int) - wanted[0]["image"])  # the files are JPEG
  assert difference.mean() < 2
  pictures = cuhk_pedes.open_source(root=str(folder), split=f"{split}_pictures", seed=0, drop_ids=())
  assert len(pictures) == COUNTS[f"num_{split}"]
  assert pictures.spec.notes == source.spec.notes
  assert bool(pictures.spec.notes) == (split == "test")  # numbers other than CUHK-PEDES' own


@pytest.mark.parametrize(
  ("split", "pictures"), [("train", "bounding_box_train"), ("val", "bounding_box_val")]
)
def test_coco_persons_reads_the_same_joints(folder, split, pictures):
  annotations = f"annotations/person_keypoints_{split}.json"
  source = coco_persons.open_source(
    root=str(folder), split="train", seed=0, annotations=annotations, images=pictures, margin=1.0
  )
  wanted = drawn(split)
  assert len(source) == len(wanted)
  for k in range(len(wanted)):
    read, truth = source[k], wanted[k]
    assert read["image"].shape == (*SIZE, 3)  # the margin is so wide that the crop is the whole picture
    inside = coco_inside(truth)
    np.testing.assert_array_equal(read["keypoints_visible"], inside)
    # COCO files round coordinates to two decimals.
    np.testing.assert_allclose(read["keypoints_xy"][inside], truth["keypoints_xy"][inside], atol=0.006)


def coco_inside(record):
  """Returns which joints are inside by the rule of COCO, 0 <= x < W.

  The rule of a record also accepts half a pixel above and to the left of the picture.
  """
  xy = record["keypoints_xy"]
  return record["keypoints_visible"] & (xy >= 0).all(axis=1) & (xy < SIZE[::-1]).all(axis=1)


def test_hidden_joints_get_label_1_and_visible_joints_label_2(folder):
  annotations = read_json(folder / "annotations" / "person_keypoints_train.json")["annotations"]
  wanted = drawn("train")
  for k, annotation in enumerate(annotations):
    v = np.array(annotation["keypoints"][2::3])
    inside = coco_inside(wanted[k])
    np.testing.assert_array_equal(v == 0, ~inside)
    np.testing.assert_array_equal(v[inside] == 1, wanted[k]["keypoints_occluded"][inside])
    assert annotation["num_keypoints"] == inside.sum()
    left, top, width, height = annotation["bbox"]
    assert 0 <= left < left + width <= SIZE[1]
    assert 0 <= top < top + height <= SIZE[0]
    assert annotation["area"] <= width * height + width + height
  assert {0, 1, 2} == {value for annotation in annotations for value in annotation["keypoints"][2::3]}


@pytest.mark.parametrize("hold_in_memory", [False, True])
def test_the_truth_of_drawn_people_is_the_written_file(folder, hold_in_memory):
  written = read_json(folder / "annotations" / "person_keypoints_val.json")
  options = {"split": "val", "seed": 4, "image_size": SIZE, "hold_in_memory": hold_in_memory}
  source = synthetic.open_source(**options, **COUNTS)
  truth = source.truth()
  drawn = json.loads(json.dumps(truth.annotations))
  for content in (written, drawn):
    for image in content["images"]:
      del image["file_name"]
  assert drawn == written
  numbers = list(range(1, COUNTS["num_val"] + 1))
  assert truth.image_id.tolist() == truth.person_id.tolist() == numbers
  assert truth.box_score.tolist() == [1] * len(numbers)
  assert [entry["area"] for entry in written["annotations"]] == [float(source[i]["area"]) for i in range(8)]


def test_written_attributes_and_captions_equal_the_drawn_records(folder):
  with (folder / "attributes.csv").open(encoding="utf-8", newline="") as file:
    table = list(csv.DictReader(file))
  texts = read_json(folder / "reid_raw.json")
  sources = {split: drawn(split) for split in ("train", "val", "query", "gallery")}
  wanted = [(split, source, k) for split, source in sources.items() for k in range(len(source))]
  assert len(table) == len(texts) == len(wanted)
  for row, text, (split, source, k) in zip(table, texts, wanted, strict=True):
    assert row["file"] == text["file_path"]
    assert (folder / row["file"]).is_file()
    assert int(row["person"]) == text["id"] == int(row["file"].split("/")[1].split("_")[0])
    assert row["split"] == text["split"] == ("test" if split in ("query", "gallery") else split)
    answers = [int(row[name]) for name in source.spec.labels["attributes"]]
    assert answers == source.columns["attributes"][k].tolist()
    assert text["captions"] == list(source.captions(k))


def test_prepare_shows_how_many_pictures_are_drawn(tmp_path, capsys, eager_progress):
  counts = [f"--{name}={count}" for name, count in COUNTS.items()]
  words = ["prepare", "synthetic", f"--out={tmp_path / 'people'}", *counts, "--workers=1"]
  assert cli.main(words) == 0
  captured = capsys.readouterr()
  assert re.search(r"^prepare: \d+ of 48 pictures, \d+ %, ", captured.err, re.MULTILINE)
  assert "prepare: " not in captured.out


def test_prepare_does_not_change_an_existing_folder(folder, capsys):
  (folder.parent / "mine").mkdir()
  assert cli.main(["prepare", "synthetic", f"--out={folder.parent / 'mine'}"]) == 1
  assert "exists" in capsys.readouterr().err
  (folder.parent / "mine").rmdir()


def test_a_failed_prepare_leaves_no_files(tmp_path, monkeypatch, capsys):
  def fail(*_):
    raise OSError("disk full")

  monkeypatch.setattr(export, "_write_lists", fail)
  words = ["--num_train=1", "--num_val=1", "--num_test=3", "--image_size=32x16", "--workers=0"]
  assert cli.main(["prepare", "synthetic", f"--out={tmp_path / 'people'}", *words]) == 1
  assert "disk full" in capsys.readouterr().err
  assert not list(tmp_path.iterdir())


def test_an_impossible_number_of_pictures_is_an_error_with_its_option(tmp_path, capsys):
  assert cli.main(["prepare", "synthetic", f"--out={tmp_path / 'people'}", "--num_test=2"]) == 1
  assert "num_test=2" in capsys.readouterr().err
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
  ("words", "option"),
  [
    (("synthetic", "--split=train"), "--split"),
    (("synthetic", "--set=hold_in_memory=True"), "--set"),
    (("synthetic", "--format=tfds", "--workers=2"), "--workers"),
    (("folder", "--root=.", "--num_train=8"), "--num_train"),
  ],
)
def test_an_option_without_effect_is_refused(words, option, tmp_path, capsys):
  assert cli.main(["prepare", *words, f"--out={tmp_path / 'people'}"]) == 1
  assert f"{option}: works only with" in capsys.readouterr().err
  assert not list(tmp_path.iterdir())


def test_all_splits_of_synthetic_people_are_packed(tmp_path, capsys, eager_progress):
  counts = {"num_train": 3, "num_val": 2, "num_test": 4}
  words = [f"--{name}={count}" for name, count in counts.items()]
  out = tmp_path / "people"
  assert (
    cli.main(["prepare", "synthetic", "--format=tfds", f"--out={out}", "--image_size=32x16", *words]) == 0
  )
  assert re.search(r"^prepare: \d of 9 records, \d+ %, ", capsys.readouterr().err, re.MULTILINE)
  opened = [tfds.open_source(root=str(out), split=split, seed=0) for split in synthetic.SPLITS]
  assert [len(source) for source in opened] == list(counts.values())
  drawn = synthetic.open_source(split="val", seed=0, image_size=(32, 16), **counts)
  for field in ("area", "joints_3d", "smpl_pose", "smpl_betas", "smpl_translation"):
    packed, wanted = ([source[i][field] for i in range(2)] for source in (opened[1], drawn))
    np.testing.assert_array_equal(packed, wanted)
