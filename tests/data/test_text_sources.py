"""The sources of text ReID: layouts, splits, views, options, counts and checks."""

import copy
import dataclasses
import os
import pickle

import numpy as np
import pytest
from PIL import Image

from hap_jax import config_sources
from hap_jax.cli import __main__ as cli
from hap_jax.data.loader import Loader
from hap_jax.data.samplers import Sequential
from hap_jax.data.sources import base, cuhk_pedes, icfg_pedes, rstpreid, synthetic, synthetic_captions, tfds
from tests.data import pose_files, text_files

LAYOUTS = {
  cuhk_pedes: (text_files.make_records, text_files.write_cuhk, "file_path"),
  icfg_pedes: (text_files.make_icfg, text_files.write_icfg, "file_path"),
  rstpreid: (text_files.make_rstp, text_files.write_rstp, "img_path"),
}
everywhere = pytest.mark.parametrize("module", LAYOUTS, ids=lambda module: module.__name__.rpartition(".")[2])


def open_split(root, split="train", module=cuhk_pedes, **options):
  return module.open_source(root=str(root), split=split, seed=0, **options)


def rows_of(records, *splits):
  return [record for split in splits for record in records if record["split"] == split]


@pytest.fixture(scope="module")
def cuhk(tmp_path_factory):
  """Returns the folder of a tiny data set in CUHK-PEDES' layout. Tests do not change it."""
  return text_files.write_cuhk(tmp_path_factory.mktemp("cuhk"))


@everywhere
@pytest.mark.parametrize("folder", ["imgs", "."])
def test_a_record_is_a_picture_with_one_of_its_captions(tmp_path, module, folder):
  make, write, key = LAYOUTS[module]
  records = make()
  write(tmp_path, records, folder=folder)
  for split in module.SPLITS:
    chosen = rows_of(records, split)
    wanted = [(record, caption) for record in chosen for caption in record["captions"]]
    source = open_split(tmp_path, split, module)
    assert len(source) == len(wanted)
    for i, (record, caption) in enumerate(wanted):
      found = source[i]
      assert found.keys() == set(source.spec.fields)
      assert found["caption"] == source.columns["caption"][i] == caption  # superfluous blanks remain
      assert found["pid"] == record["id"]
      assert found["picture"] == records.index(record)
      assert source.name(i) == source.file(i)
      assert source.name(i).endswith(record[key])
      assert found["image"].shape == (24, 12, 3)
    assert found["pid"].dtype == found["picture"].dtype == np.int32
    with Image.open(source.file(i)) as picture:
      np.testing.assert_array_equal(found["image"], np.asarray(picture))


@pytest.mark.parametrize("file", ["ICFG-PEDES.json", "ICFG_PEDES.json"])
def test_icfg_pedes_takes_split_and_person_from_the_record(tmp_path, file):
  records = text_files.make_icfg()
  # Some copies of the file have longer paths. The last three parts are used.
  records[1]["file_path"] = f"/home/somebody/ICFG-PEDES/{records[1]['file_path']}"
  text_files.write_icfg(tmp_path, text_files.make_icfg(), file="unused.json")
  pose_files.write_json(tmp_path / file, records)
  train, test = (open_split(tmp_path, split, icfg_pedes) for split in icfg_pedes.SPLITS)
  assert "/test/0000/" in train.file(0)
  assert "/imgs/train/0000/" in train.file(1)
  assert train.columns["pid"].tolist() == [1, 1, 2, 2, 3, 3, 4, 4]
  assert test.columns["pid"].tolist() == [5, 5, 6, 6]
  assert (train.spec.people, test.spec.people) == ("icfg_pedes", "icfg_pedes, test")


@everywhere
def test_the_views_are_the_pictures_and_the_captions_of_a_split(tmp_path, module, monkeypatch):
  make, write, _ = LAYOUTS[module]
  records = make()
  write(tmp_path, records)
  chosen = rows_of(records, "test")
  pictures = open_split(tmp_path, "test_pictures", module)
  assert pictures.columns.keys() == {"pid"}
  assert pictures.columns["pid"].tolist() == [record["id"] for record in chosen]
  pairs = open_split(tmp_path, "test", module)
  for row in range(len(pictures)):
    pair = row * len(chosen[0]["captions"])
    assert pictures[row].keys() == {"image", "pid"}
    assert pictures.name(row) == pictures.file(row) == pairs.name(pair)
    np.testing.assert_array_equal(pictures[row]["image"], pairs[pair]["image"])
  with monkeypatch.context() as patched:
    patched.setattr(base, "read_bytes", None)  # a caption needs no picture
    captions = open_split(tmp_path, "test_captions", module)
    texts = [caption for record in chosen for caption in record["captions"]]
    assert [captions[i]["caption"] for i in range(len(captions))] == texts
    assert captions.columns.keys() == {"caption", "pid", "picture"} == captions[0].keys()
    own = captions.columns["picture"]
    np.testing.assert_array_equal(pictures.columns["pid"][own], captions.columns["pid"])
    assert [chosen[k]["captions"].count(text) for k, text in zip(own, texts, strict=True)] == [1] * len(texts)
  assert own.dtype == captions[0]["pid"].dtype == np.int32
  assert "(" in captions.name(0)
  assert "caption 0" in captions.name(0)
  assert not hasattr(captions, "file")
  assert not hasattr(pictures, "fetch")
  for source in (pictures, captions):
    with pytest.raises(IndexError):
      source[len(source)]
    with pytest.raises(IndexError):
      source[-1]


def test_the_pictures_of_the_caption_view_may_be_missing(tmp_path, cuhk):
  pose_files.write_json(tmp_path / "reid_raw.json", text_files.make_records())
  assert len(open_split(tmp_path, "test_captions")) == 8
  with pytest.raises(ValueError, match="of the 4 records of test are missing"):
    open_split(tmp_path, "test_pictures")


def test_trainval_is_train_followed_by_val(tmp_path):
  records = text_files.make_rstp()
  text_files.write_rstp(tmp_path, records[::-1])
  source = open_split(tmp_path, "trainval", rstpreid)
  wanted = [record["id"] for record in rows_of(records[::-1], "train", "val") for _ in range(2)]
  assert source.columns["pid"].tolist() == wanted
  text_files.write_icfg(tmp_path)
  assert len(open_split(tmp_path, "trainval", icfg_pedes)) == 8  # this data set has no val


def test_the_case_of_a_split_does_not_matter(tmp_path):
  records = text_files.make_records()
  for record in records:
    record["split"] = record["split"].title()
  assert len(open_split(text_files.write_cuhk(tmp_path, records))) == 12


def test_two_records_of_one_picture_are_one_picture(tmp_path):
  records = text_files.make_records()
  again = {**records[-1], "captions": ["One more."], "file_path": f"./{records[-1]['file_path']}"}
  text_files.write_cuhk(tmp_path, [*records, again])
  assert len(open_split(tmp_path, "test_pictures")) == 4
  captions = open_split(tmp_path, "test_captions")
  assert captions.columns["picture"].tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 3]
  assert captions[8]["caption"] == "One more."


def test_dropped_persons_are_left_out_of_training_and_reported(tmp_path):
  records = text_files.make_records()
  for record in records[:2]:
    record["id"] = 1369
  for record in records[6:8]:
    record["id"] = 4116  # a person of val
  text_files.write_cuhk(tmp_path, records)
  source = open_split(tmp_path)
  assert source.columns["pid"].tolist() == [2] * 4 + [3] * 4
  dropped = "2 pictures and 4 captions of 1 persons are left out of training by config.data.cuhk_pedes.drop"
  assert dropped in source.spec.notes[1]
  assert "(id 1369)" in source.spec.notes[1]
  assert 4116 in open_split(tmp_path, "trainval").columns["pid"]
  assert len(open_split(tmp_path, "val")) == 4
  assert len(open_split(tmp_path, drop_ids=())) == 12
  assert open_split(tmp_path, drop_ids=(2, 3, 7)).columns["pid"].tolist() == [1369] * 4
  with pytest.raises(ValueError, match=r"drop_ids=\(1369, 2, 3\) leaves no record"):
    open_split(tmp_path, drop_ids=(1369, 2, 3))


def test_counts_are_compared_with_the_official_numbers(tmp_path, monkeypatch):
  text_files.write_cuhk(tmp_path)
  (note,) = open_split(tmp_path).spec.notes
  assert (
    "6 pictures, 3 persons, 12 captions; the official numbers are 34,051 pictures, 11,000 persons, 68,1"
    in note
  )
  assert "4 pictures, 2 persons, 8 captions" in open_split(tmp_path, "test_captions").spec.notes[0]
  assert open_split(tmp_path, annotations="reid_raw.json").spec.notes == ()
  assert open_split(tmp_path, drop_ids=()).spec.notes == ()
  assert open_split(tmp_path, "val").spec.notes == ()  # the official numbers are not known
  same = dataclasses.replace(cuhk_pedes._DATA, counts={"train": (6, 3, 12)})
  monkeypatch.setattr(cuhk_pedes, "_DATA", same)
  assert open_split(tmp_path).spec.notes == ()


def test_official_numbers_of_trainval_are_the_sums_of_its_parts():
  counts = rstpreid._DATA.counts
  assert np.add(counts["train"], counts["val"]).tolist() == list(counts["trainval"])
  for module in (cuhk_pedes, icfg_pedes):
    assert module.open_source.__kwdefaults__["drop_ids"] == module._DATA.dropped


def test_notes_of_both_views_are_logged_once(cuhk, caplog):
  for view in ("test_pictures", "test_captions"):
    assert open_split(cuhk, view).spec.notes
  assert len(caplog.records) == 1


@pytest.mark.parametrize(
  ("changes", "words"),
  [
    ({"captions": ["fine", " \t"]}, r"record 3: caption 2 is empty: correct the caption or remove it"),
    ({"captions": ["fine", 7]}, r"record 3: caption 2 is 7, expected a text"),
    (
      {"captions": ["a\0b"]},
      r"record 3: caption 1 is 'a.x00b', of 3 characters; expected UTF-8 of at most 4,096",
    ),
    ({"captions": ["\ud800"]}, r"record 3: caption 1 is '.ud800'"),
    ({"captions": ["x" * 4097]}, r"caption 1 is 'x+', of 4,097 characters"),
    (
      {"captions": []},
      r"record 3 has \[\] under captions, expected a list of at least one text: add a caption",
    ),
    ({"captions": "a man"}, r"record 3 has 'a man' under captions, expected a list"),
    ({"split": "training"}, r"record 3 has 'training' under split, expected train, val, test"),
    ({"split": None}, r"record 3 has null under split"),
    ({"id": "7"}, r"record 3 has '7' under id, expected a whole number"),
    ({"id": 1.5}, r"record 3 has 1.5 under id, expected a whole number"),
    ({"id": -1}, r"record 3 has -1 under id, expected a whole number from 0"),
    ({"id": True}, r"record 3 has True under id"),
    ({"file_path": 3}, r"record 3 has 3 under file_path, expected a text"),
    (
      {"file_path": "../up.png"},
      r"record 3: the file name is '\.\./up\.png'; expected a path below the folder",
    ),
    ({"file_path": "/etc/passwd"}, r"record 3: the file name is '/etc/passwd'"),
    ({"file_path": "\ud800.png"}, r"record 3: the file name '.ud800\.png' is not UTF-8: rename the file"),
    ({"id": 6}, r"train and test share 1 of the ids \(6\); expected different people"),
    ({"id": 4}, r"train and val share 1 of the ids \(4\)"),
    (
      {"file_path": "CUHK01/0000000.png"},
      r"records 1 and 3 name the picture CUHK01/0000000\.png with different ids, 1 and 2; expected one",
    ),
    (
      {"file_path": "./CUHK01/0000009.png", "id": 5},
      r"records 3 and 10 name the picture CUHK01/0000009\.png with different splits, train and test",
    ),
    (
      {"file_path": "cam_a/nobody.bmp"},
      r"pictures of 1 of the 6 records of train .*\(record 3 cam_a/nobody\.bmp\)",
    ),
  ],
)
def test_a_wrong_record_is_an_error_of_one_line_that_names_file_and_record(tmp_path, cuhk, changes, words):
  records = text_files.make_records()
  records[2].update(changes)
  pose_files.write_json(tmp_path / "reid_raw.json", records)
  (tmp_path / "imgs").symlink_to(cuhk / "imgs")
  with pytest.raises(ValueError, match=words) as error:
    open_split(tmp_path)
  assert str(error.value).startswith(f"{tmp_path}/reid_raw.json")
  assert "\n" not in str(error.value)


@pytest.mark.parametrize("key", ["split", "id", "file_path", "captions"])
def test_a_missing_key_is_named(tmp_path, key):
  records = text_files.make_records()
  del records[4][key]
  pose_files.write_json(tmp_path / "reid_raw.json", records)
  with pytest.raises(ValueError, match=rf'reid_raw\.json: record 5 has no key "{key}"'):
    open_split(tmp_path)


@pytest.mark.parametrize(
  ("text", "words"),
  [
    ("[{", "reid_raw.json: not a JSON file"),
    (
      '{"images": []}',
      r"reid_raw\.json: expected a list of objects in reid_raw\.json's format.*found {'images'",
    ),
    ("[]", "expected a list of objects"),
    ("[3]", "record 1 is 3; expected an object of reid_raw.json's format"),
  ],
)
def test_a_file_of_another_format_is_an_error_of_one_line(tmp_path, text, words):
  (tmp_path / "reid_raw.json").write_text(text)
  with pytest.raises(ValueError, match=words) as error:
    open_split(tmp_path)
  assert "\n" not in str(error.value)


def test_caption_all_json_is_refused_because_it_has_no_splits(tmp_path):
  records = text_files.make_records()
  for record in records:
    del record["split"]
  pose_files.write_json(tmp_path / "caption_all.json", records)
  with pytest.raises(
    ValueError, match=r"reid_raw\.json not found; caption_all\.json is there, but it has no spl"
  ):
    open_split(tmp_path)
  with pytest.raises(
    ValueError,
    match=r"caption_all\.json: record 1 has no key \"split\"; expected reid_raw\.json, because capt",
  ):
    open_split(tmp_path, annotations="caption_all.json")


@everywhere
def test_an_error_names_the_file_that_is_expected(tmp_path, module):
  (tmp_path / "something").mkdir()
  option = f"config.data.{module.__name__.rpartition('.')[2]}.annotations"
  with pytest.raises(ValueError, match=rf"json not found; .*{option} to its path; found there: something"):
    open_split(tmp_path, module=module)
  with pytest.raises(ValueError, match=r"mine\.json: no such file.*annotations to another file"):
    open_split(tmp_path, module=module, annotations="mine.json")
  with pytest.raises(
    ValueError, match=r"split='query': .* has train, (val, )?test, trainval, and for each .*_capt"
  ):
    open_split(tmp_path, "query", module)
  with pytest.raises(ValueError, match=r"config\.data\.root is empty"):
    open_split("", module=module)


def test_a_split_without_records_is_an_error(tmp_path):
  text_files.write_icfg(tmp_path)
  for split in ("val", "val_pictures"):
    with pytest.raises(ValueError, match=f"split='{split}': icfg_pedes has train, test, trainval, and"):
      open_split(tmp_path, split, icfg_pedes)
  records = [record for record in text_files.make_rstp() if record["split"] != "val"]
  text_files.write_rstp(tmp_path, records)
  with pytest.raises(
    ValueError, match=r"json: no records of val, but \d+ of test, \d+ of train; expected at"
  ):
    open_split(tmp_path, "val", rstpreid)


def test_an_id_in_both_splits_of_icfg_pedes_is_a_note(tmp_path):
  records = text_files.make_icfg()
  for record in records[-2:]:
    record["id"] = 1
  source = open_split(text_files.write_icfg(tmp_path, records), "test", icfg_pedes)
  assert "train and test share 1 of the ids (1)" in source.spec.notes[0]


def test_missing_pictures_are_found_by_listing_each_folder_once(tmp_path, monkeypatch):
  records = text_files.make_records(splits={"train": 40, "test": 4})
  text_files.write_cuhk(tmp_path, records)
  gone = [record["file_path"] for record in records[:40] if record["file_path"].startswith("CUHK01")][:7]
  for name in gone:
    (tmp_path / "imgs" / name).unlink()
  listed, listdir = [], os.listdir
  monkeypatch.setattr(os, "listdir", lambda folder: listed.append(folder) or listdir(folder))
  with pytest.raises(ValueError, match=r"pictures of 7 of the 40 records of train are missing") as error:
    open_split(tmp_path)
  assert [name in str(error.value) for name in gone] == [True] * 5 + [False] * 2
  assert f"expected them in {tmp_path}/imgs or {tmp_path}: add the pictures" in str(error.value)
  assert len(listed) == 6  # three folders, with and without imgs/
  monkeypatch.undo()
  assert len(open_split(tmp_path, "test")) == 8  # the pictures of another split do not matter


def test_a_broken_picture_is_a_bad_record(tmp_path):
  source = open_split(text_files.write_cuhk(tmp_path))
  (tmp_path / "imgs" / "CUHK01" / "0000000.png").write_bytes(b"no picture")
  with pytest.raises(base.BadRecordError, match=r"CUHK01/0000000\.png"):
    source[0]


def test_a_changed_file_is_read_again(tmp_path):
  records = text_files.make_records()
  text_files.write_cuhk(tmp_path, records)
  first = open_split(tmp_path)
  changed = copy.deepcopy(records)
  changed[0]["captions"][0] = "Another text."
  pose_files.write_json(tmp_path / "reid_raw.json", changed)
  assert open_split(tmp_path)[0]["caption"] == "Another text."
  assert first[0]["caption"] == records[0]["captions"][0]


def test_the_pickle_contains_no_text_twice(cuhk):
  source = open_split(cuhk)
  texts = sum(len(text) + 1 for text in source.columns["caption"])
  assert len(pickle.dumps(source)) < texts + 1500
  assert pickle.loads(pickle.dumps(source)).columns["caption"].tolist() == source.columns["caption"].tolist()


def test_the_loader_reads_pairs_and_both_views(cuhk):
  fields = {"test": ("image", "pid", "picture"), "test_pictures": None, "test_captions": ("pid", "picture")}
  for split, names in fields.items():
    source = pickle.loads(pickle.dumps(open_split(cuhk, split)))
    loader = Loader(source, (), Sequential(len(source), 3), seed=0, fields=names)
    batches = [batch for _, batch in zip(range(loader.num_steps), loader.iterate(0), strict=False)]
    pids = np.concatenate([batch["pid"][batch["valid"]] for batch in batches])
    np.testing.assert_array_equal(pids, source.columns["pid"])
    assert ("image" in batches[0]) == (split != "test_captions")


def test_any_number_of_ids_can_be_dropped_by_configuration_and_command(cuhk, tmp_path):
  for ids in ((), (1,), [1, 2]):
    options = {"drop_ids": ids}
    source = config_sources.open_named_source("cuhk_pedes", root=str(cuhk), split="train", options=options)
    assert len(source) == 12 - 4 * len(ids)
  for wrong in (1, "1", (1, "2"), (1.5,)):
    with pytest.raises(ValueError, match=r"option drop_ids=.*: expected a tuple of values such as \(1369"):
      config_sources.open_named_source(
        "cuhk_pedes", root=str(cuhk), split="train", options={"drop_ids": wrong}
      )
  with pytest.raises(ValueError, match=r"image_size=\(8, 8, 8\); expected \(H, W\)"):
    config_sources.open_named_source("synthetic", root="", split="train", options={"image_size": (8, 8, 8)})


def test_packed_pairs_give_back_captions_and_views(cuhk, tmp_path, capsys):
  out = tmp_path / "packed"
  words = ["prepare", "cuhk_pedes", f"--root={cuhk}", f"--out={out}", "--set", "drop_ids=(2,)"]
  assert cli.main(words) == 0
  assert "8 train, 4 val, 8 test" in capsys.readouterr().out
  options = {"root": str(out), "seed": 0}
  for split in ("train", "val", "test", "trainval", "test_pictures", "test_captions", "val_captions"):
    wanted, packed = open_split(cuhk, split, drop_ids=(2,)), tfds.open_source(split=split, **options)
    assert packed.spec == dataclasses.replace(wanted.spec, notes=packed.spec.notes)
    assert len(packed) == len(wanted)
    for field, column in wanted.columns.items():
      assert packed.columns[field].tolist() == column.tolist(), field
    for i in (0, len(wanted) - 1):
      assert packed[i].keys() == wanted[i].keys()
      for field, value in wanted[i].items():
        np.testing.assert_array_equal(packed[i][field], value)
    sent = pickle.loads(pickle.dumps(packed))
    assert sent.columns["pid"].tolist() == wanted.columns["pid"].tolist()
  pictures = tfds.open_source(split="test_pictures", **options)
  assert pictures.name(2) == "imgs/cam_a/010_45.bmp"
  record = pictures.fetch(1)()
  np.testing.assert_array_equal(record["image"], pictures[1]["image"])
  assert not hasattr(pictures, "file")


def test_a_view_without_pictures_cannot_be_packed(cuhk, tmp_path, capsys):
  words = ["prepare", "cuhk_pedes", f"--root={cuhk}", f"--out={tmp_path / 'packed'}"]
  assert cli.main([*words, "--split=test_captions"]) == 1
  assert (
    "test_captions of cuhk_pedes has no pictures, so it cannot be packed: pack the p"
    in capsys.readouterr().err
  )
  assert cli.main([*words, "--split=test_pictures"]) == 0
  assert len(tfds.open_source(root=str(tmp_path / "packed"), split="test_pictures", seed=0)) == 4


def test_drawn_people_share_two_captions_per_person():
  options = {"seed": 5, "num_train": 12, "num_val": 8, "num_test": 20, "image_size": (32, 16)}
  pairs = synthetic_captions.open_source(split="test", **options)
  people = synthetic.open_source(split="test", **options)
  assert len(pairs) == 40
  for i in (0, 1, 39):
    record = pairs[i]
    assert record["caption"] == people.captions(i // 2)[i % 2] == pairs.columns["caption"][i]
    np.testing.assert_array_equal(record["image"], people[i // 2]["image"])
    assert record["pid"] == people.columns["pid"][i // 2]
    assert pairs.name(i) == people.name(i // 2)
  pictures, captions = (
    synthetic_captions.open_source(split=f"test_{view}", **options) for view in ("pictures", "captions")
  )
  assert len(pictures) == 20
  np.testing.assert_array_equal(pictures.columns["pid"], people.columns["pid"])
  np.testing.assert_array_equal(pictures[7]["image"], people[7]["image"])
  assert len(captions) == len(set(captions.columns["caption"])) == 6  # two of each of the three persons
  assert captions.columns["picture"].tolist() == [-1] * 6
  assert captions.columns["pid"].tolist() == np.repeat(np.unique(people.columns["pid"]), 2).tolist()
  assert [captions[i]["caption"] for i in (2, 3)] == list(people.captions(8))
  assert pairs.spec.people == people.spec.people
  whole = synthetic_captions.open_source(split="trainval", **options)
  parts = [synthetic_captions.open_source(split=split, **options) for split in ("train", "val")]
  assert whole.columns["pid"].tolist() == [pid for part in parts for pid in part.columns["pid"].tolist()]


@pytest.mark.parametrize(
  ("options", "words"),
  [
    ({"split": "query"}, "split='query': synthetic_captions has train, val, test, trainval"),
    ({"split": "test_captions", "num_test": 0}, r"config\.data\.synthetic_captions\.num_test"),
    ({"image_size": (8, 8)}, r"config\.data\.synthetic_captions\.image_size"),
  ],
)
def test_errors_about_drawn_people_name_the_option_of_this_source(options, words):
  with pytest.raises(ValueError, match=words):
    synthetic_captions.open_source(**options)


@pytest.mark.parametrize(("module", "counts"), [(cuhk_pedes, (1, 14)), (rstpreid, (1, 10))])
def test_real_records_are_read_and_their_missing_pictures_named(samples, tmp_path, module, counts):
  name = module.__name__.rpartition(".")[2]
  file = module._DATA.files[0]
  records = text_files.read_json(samples / "text_reid" / name / file)
  options = {"module": module, "annotations": str(samples / "text_reid" / name / file)}
  (tmp_path / "imgs").mkdir()
  with pytest.raises(ValueError, match=rf"{file}: the pictures of 1 of the 1 records of train are missing"):
    open_split(tmp_path, **options)
  key = LAYOUTS[module][2]
  text_files.write_pictures(tmp_path / "imgs", [record[key] for record in records])
  for split, count in zip(("train", "test"), counts, strict=True):
    source = open_split(tmp_path, split, **options)
    chosen = rows_of(records, split)
    assert len(np.unique(source.columns["picture"])) == count == len(chosen)
    assert source.columns["caption"].tolist() == [text for record in chosen for text in record["captions"]]
    assert source[len(source) - 1]["image"].shape == (24, 12, 3)
    assert source.spec.notes == ()
