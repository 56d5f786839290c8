"""A packed data set has the records of its source, in the same order. A failed packing leaves nothing."""

import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets
from PIL import Image

from hap_jax.cli import __main__ as cli
from hap_jax.data import pack
from hap_jax.data.loader import Loader
from hap_jax.data.samplers import ShuffledEpochs
from hap_jax.data.skeletons import COCO17
from hap_jax.data.sources import folder, luperson, market1501, synthetic, tfds
from hap_jax.data.sources.base import BadRecordError, SourceSpec
from hap_jax.data.transforms.image import RandomResizedCrop
from hap_jax.io.picture_file import encode_jpeg
from tests.data import luperson_files

ROOT = pathlib.Path(__file__).parents[2]
NUM_RECORDS = 14


def drawn_record(i):
  rng = np.random.default_rng(i)
  H, W = rng.integers((40, 16), (60, 24))
  return {
    "image": rng.integers(0, 256, (H, W, 3), dtype=np.uint8),
    "keypoints_xy": (rng.random((17, 2)) * (W, H)).astype(np.float32),
    "keypoints_visible": rng.random(17) < 0.8,
    "score": np.float32(rng.random()),
    "box": rng.integers(0, 9, 4).astype(np.int32),
  }


@dataclasses.dataclass(frozen=True)
class DrawnSource:
  """A source of pictures that are not files. Some records cannot be read."""

  size: int = NUM_RECORDS
  bad: tuple[int, ...] = ()
  killed_at: int = -1

  spec = SourceSpec(
    "drawn", COCO17, "free", ("image", "keypoints_xy", "keypoints_visible", "score", "box"), ("a note",)
  )

  def __len__(self):
    return self.size

  def __getitem__(self, i):
    if i == self.killed_at:
      os.kill(os.getpid(), signal.SIGKILL)
    if i in self.bad:
      raise BadRecordError(f"drawn {i} is broken")
    return drawn_record(i)

  @property
  def columns(self):
    return {}

  def name(self, i):
    return f"drawn {i}"


@pytest.fixture(scope="module")
def people(tmp_path_factory):
  """Returns (folder of people in LUPerson's layout, folder of the data set that `prepare luperson` made)."""
  root = tmp_path_factory.mktemp("luperson")
  luperson_files.write(root, map(drawn_record, range(NUM_RECORDS)))
  out = root.parent / "packed"
  words = ["prepare", "luperson", f"--root={root}", "--set=subset=all", f"--out={out}"]
  assert cli.main(words) == 0
  return root, out


def open_packed(folder, split="train", **options):
  return tfds.open_source(root=str(folder), split=split, seed=0, **options)


def open_people(root, split="train", **options):
  return luperson.open_source(root=str(root), split=split, seed=0, subset="all", **options)


def assert_same_records(packed, source, names=True):
  assert len(packed) == len(source)
  for i in range(len(source)):
    a, b = packed[i], source[i]
    assert a.keys() == b.keys()
    for name in a:
      assert a[name].dtype == b[name].dtype
      np.testing.assert_array_equal(a[name], b[name], err_msg=name)
    assert pathlib.Path(source.name(i)).match(packed.name(i))


def test_packed_records_joints_and_order_equal_the_source(people):
  root, out = people
  packed, source = open_packed(out), open_people(root)
  assert packed.spec == source.spec
  assert_same_records(packed, source)
  with pytest.raises(IndexError):
    packed[NUM_RECORDS]
  assert packed.columns == source.columns == {}


def test_tfds_itself_reads_the_same_bytes_and_numbers(people):
  root, out = people
  source = open_people(root)
  skip = {"image": tensorflow_datasets.decode.SkipDecoding()}
  raw = tensorflow_datasets.data_source("hap_luperson", split="train", data_dir=out, decoders=skip)
  assert len(raw) == NUM_RECORDS
  for i in range(NUM_RECORDS):
    assert raw[i]["id"] == i
    assert raw[i]["image"] == pathlib.Path(source.name(i)).read_bytes()
    np.testing.assert_array_equal(raw[i]["keypoints"][:, :2], source[i]["keypoints_xy"])
    np.testing.assert_array_equal(raw[i]["keypoints"][:, 2] == 1, source[i]["keypoints_visible"])
  decoded = tensorflow_datasets.builder_from_directory(out / "hap_luperson" / "1.0.0").as_data_source("train")
  np.testing.assert_array_equal(decoded[3]["image"], source[3]["image"])


def test_the_shard_contains_the_unchanged_bytes_of_the_files(people):
  """So a picture can be decoded without unpacking the record."""
  root, out = people
  (shard,) = out.glob("*/*/*.array_record-*")
  data, source = shard.read_bytes(), open_people(root)
  for i in range(len(source)):
    assert pathlib.Path(source.file(i)).read_bytes() in data


def test_held_out_records_equal_the_source(people):
  root, out = people
  for split in ("train", "val"):
    assert_same_records(open_packed(out, split, num_val=4), open_people(root, split, num_val=4))
  with pytest.raises(ValueError, match="num_val=0"):
    open_packed(out, "val")
  with pytest.raises(ValueError, match=r"split='query'.*has train"):
    open_packed(out, "query")


def test_a_worker_reads_the_same_batches_from_shards_and_from_files(people):
  root, out = people
  crop = RandomResizedCrop((32, 16), flip_prob=0.5)
  packed, files = (
    Loader(source, (crop,), ShuffledEpochs(NUM_RECORDS, 4, seed=1), seed=1, workers=1)
    for source in (open_packed(out), open_people(root))
  )
  with packed.iterate(0, 2) as batches:
    for step, batch in enumerate(batches):
      wanted = files.batch(step)
      assert batch.keys() == wanted.keys()
      for name in wanted:
        np.testing.assert_array_equal(batch[name], wanted[name], err_msg=name)


def test_persons_and_cameras_of_every_split_are_packed(tmp_path):
  folder = tmp_path / "market"
  for name in market1501.FOLDERS.values():
    (folder / name).mkdir(parents=True)
  for k, name in enumerate(("bounding_box_train/0002_c1s1_0_00", "bounding_box_train/0002_c2s1_1_00")):
    (folder / f"{name}.jpg").write_bytes(encode_jpeg(drawn_record(k)["image"]))
  for k, name in enumerate(("query/0005_c1s1_0_00", "bounding_box_test/0005_c3s1_0_00"), start=2):
    (folder / f"{name}.jpg").write_bytes(encode_jpeg(drawn_record(k)["image"]))
  assert cli.main(["prepare", "market1501", f"--root={folder}", f"--out={tmp_path / 'packed'}"]) == 0
  for split in ("train", "query", "gallery"):
    packed = open_packed(tmp_path / "packed", split)
    source = market1501.open_source(root=str(folder), split=split, seed=0)
    assert packed.spec == source.spec  # includes the notes
    assert_same_records(packed, source)
    assert packed.columns.keys() == source.columns.keys() == {"pid", "camid"}
    for name in source.columns:
      np.testing.assert_array_equal(packed.columns[name], source.columns[name])


@pytest.fixture
def turned(tmp_path):
  """Returns a folder of pictures with an EXIF header: stored as 40 x 16, upright as 16 x 40."""
  root = tmp_path / "turned"
  root.mkdir()
  exif = Image.Exif()
  exif[0x0112] = 8
  for name in ("a.jpg", "b.png", "c.webp"):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 16, 3), np.uint8)).save(
      root / name, exif=exif
    )
  return root


def metadata_of(packed):
  (path,) = packed.glob("*/*/metadata.json")
  return path, json.loads(path.read_text())


@pytest.mark.parametrize(
  ("words", "exif", "shape", "written"),
  [((), "apply", (16, 40, 3), 3), (("--set=exif=ignore",), "ignore", (40, 16, 3), 2)],
)
def test_the_option_exif_is_packed_and_the_files_are_not_changed(
  turned, tmp_path, words, exif, shape, written
):
  out = tmp_path / "packed"
  assert cli.main(["prepare", "folder", f"--root={turned}", f"--out={out}", *words]) == 0
  packed, source = open_packed(out, "all"), folder.open_source(root=str(turned), exif=exif)
  assert packed.spec == source.spec
  assert packed.spec.exif == exif
  assert_same_records(packed, source)
  for i in range(3):
    assert packed[i]["image"].shape == shape
    assert packed.read_bytes(i) == pathlib.Path(source.file(i)).read_bytes()
  # Versions that do not know the entry must refuse the data set if it changes the pictures.
  assert metadata_of(out)[1]["hap_jax"]["format"] == written


def test_a_data_set_that_was_packed_without_the_option_exif_has_the_stored_pixels(turned, tmp_path):
  out = tmp_path / "packed"
  assert cli.main(["prepare", "folder", f"--root={turned}", f"--out={out}"]) == 0
  path, metadata = metadata_of(out)
  assert metadata["hap_jax"].pop("exif") == "apply"
  path.write_text(json.dumps({"hap_jax": metadata["hap_jax"] | {"format": 2}}))
  packed = open_packed(out, "all")
  assert packed.spec.exif == "ignore"
  assert_same_records(packed, folder.open_source(root=str(turned), exif="ignore"))


def test_splits_with_different_values_of_exif_are_an_error(turned, tmp_path):
  sources = {exif: folder.open_source(root=str(turned), exif=exif) for exif in ("apply", "ignore")}
  with pytest.raises(ValueError, match=r"different values of the option exif.*expected one value"):
    pack.write_dataset(tmp_path / "packed", sources)
  assert not (tmp_path / "packed").exists()


def test_trainval_is_train_followed_by_val(tmp_path):
  words = ["--num_train=5", "--num_val=3", "--num_test=4", "--image_size=32x16"]
  out = tmp_path / "packed"
  assert cli.main(["prepare", "synthetic", "--format=tfds", f"--out={out}", *words]) == 0
  both, *parts = (open_packed(out, split) for split in ("trainval", "train", "val"))
  assert [len(source) for source in (both, *parts)] == [8, 5, 3]
  for i, (source, row) in enumerate([(parts[0], 0), (parts[0], 4), (parts[1], 0), (parts[1], 2)]):
    index = (0, 4, 5, 7)[i]
    for name, value in source[row].items():
      np.testing.assert_array_equal(both[index][name], value, err_msg=name)
  attributes = np.concatenate([part.columns["attributes"] for part in parts])
  np.testing.assert_array_equal(both.columns["attributes"], attributes)
  wanted = synthetic.open_source(split="trainval", num_train=5, num_val=3, image_size=(32, 16))
  np.testing.assert_array_equal(both.columns["pid"], wanted.columns["pid"])


def test_order_is_kept_over_many_shards(tmp_path, monkeypatch):
  monkeypatch.setattr(pack, "_SHARD_BYTES", 6_000)
  source = DrawnSource()
  pack.write_dataset(tmp_path / "packed", {"train": source})
  assert len(list(tmp_path.glob("packed/*/*/*array_record*"))) >= 4
  packed = open_packed(tmp_path / "packed")
  for i in range(len(source)):
    for name in ("keypoints_xy", "keypoints_visible", "score", "box"):
      np.testing.assert_array_equal(packed[i][name], source[i][name])
    assert packed.name(i) == source.name(i)


def test_bad_records_are_left_out_and_noted(tmp_path):
  result = pack.write_dataset(tmp_path / "packed", {"train": DrawnSource(bad=(0, 3))}, max_bad_share=0.2)
  assert result["train"].records == NUM_RECORDS - 2
  assert result["train"].bad.keys() == {0, 3}
  packed = open_packed(tmp_path / "packed")
  assert len(packed) == NUM_RECORDS - 2
  assert packed.name(2) == "drawn 4"
  assert packed.spec.notes == ("a note", "2 records that cannot be read are left out (id 0, 3)")


def test_a_file_name_that_is_not_utf8_is_counted_and_named_as_bad_record(tmp_path, capsys):
  pictures = tmp_path / "pictures"
  pictures.mkdir()
  for name in (b"a.jpg", b"caf\xe9.jpg", b"d.jpg"):
    path = os.path.join(os.fsencode(pictures), name)
    pathlib.Path(os.fsdecode(path)).write_bytes(encode_jpeg(drawn_record(1)["image"]))
  words = ["prepare", "folder", f"--root={pictures}", f"--out={tmp_path / 'packed'}"]
  assert cli.main([*words, "--max_bad_share=0.5"]) == 0
  assert "all: 1 records that cannot be read were left out" in capsys.readouterr().out
  packed = open_packed(tmp_path / "packed", "all")
  assert [packed.name(i) for i in range(len(packed))] == ["a.jpg", "d.jpg"]
  assert packed.spec.notes == ("1 records that cannot be read are left out (id 1)",)
  assert cli.main([*words[:-1], f"--out={tmp_path / 'other'}"]) == 1
  error = capsys.readouterr().err
  assert r"the file name 'caf\udce9.jpg' is not UTF-8: rename the file" in error
  assert "Traceback" not in error


@pytest.mark.parametrize("bad", [(3,), tuple(range(NUM_RECORDS))])
def test_too_many_bad_records_leave_no_files(tmp_path, bad):
  with pytest.raises(ValueError, match=r"cannot be read.*max_bad_share"):
    pack.write_dataset(tmp_path / "packed", {"train": DrawnSource(bad=bad)}, max_bad_share=0.01)
  assert not list(tmp_path.iterdir())


def test_a_killed_packing_leaves_no_data_set_that_can_be_opened(tmp_path):
  code = f"""
import sys
sys.path[:0] = {[str(ROOT), str(pathlib.Path(__file__).parent)]}
from hap_jax.data import pack
from test_pack import DrawnSource
pack.write_dataset({str(tmp_path / "packed")!r}, {{"train": DrawnSource(killed_at=9)}})
"""
  run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
  assert run.returncode == -signal.SIGKILL, run.stderr
  (left,) = tmp_path.iterdir()
  assert left.name.endswith(".part")
  with pytest.raises(ValueError, match="0 data sets"):
    open_packed(left)


def test_an_existing_folder_is_not_changed(people, capsys):
  root, out = people
  assert cli.main(["prepare", "luperson", f"--root={root}", "--set=subset=all", f"--out={out}"]) == 1
  assert "exists" in capsys.readouterr().err


def test_a_folder_without_a_data_set_is_an_error(tmp_path):
  (tmp_path / "a").mkdir()
  with pytest.raises(ValueError, match=r"0 data sets.*prepare SOURCE"):
    open_packed(tmp_path)
