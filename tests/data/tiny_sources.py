"""Makes a few tiny records of every source. Each file of data/sources has a function of the same name here.

The function takes an empty folder and returns opened splits. The contract test of all sources finds it by
name.
"""

import dataclasses
import json

import numpy as np

from hap_jax import config
from hap_jax.data import pack
from hap_jax.data.skeletons import COCO17
from hap_jax.data.sources import synthetic as drawn_people
from hap_jax.data.sources.base import BadRecordError, SourceSpec
from tests.data import luperson_files, pose_files, text_files
from tests.data import test_attribute_sources as attribute_files
from tests.data import test_attribute_table as table_files
from tests.data import test_coco_persons as coco_files
from tests.data import test_posed_folder as posed_files
from tests.data import test_reid_sources as reid_files

VIEWS = ("test", "test_pictures", "test_captions")  # the test split of text ReID
TEXTS = ("a woman in red", "ein Mann, groß", "", "赤い服の人", "two words")


@dataclasses.dataclass(frozen=True)
class Described:
  """A source of random pictures with joints and columns of every kind.

  Attributes:
    size: number of records.
    bad: numbers of the records that cannot be read.
    changed: {field: values} of columns that replace the default columns.
    fields: names of the fields besides picture and joints.
  """

  size: int = 5
  bad: tuple[int, ...] = ()
  changed: dict = dataclasses.field(default_factory=dict)
  fields: tuple[str, ...] = ("pid", "caption", "captions", "joints", "score")

  @property
  def spec(self):
    return SourceSpec(
      "described",
      COCO17,
      "free",
      ("image", "keypoints_xy", "keypoints_visible", *self.fields),
      labels={"joints": ("head", "foot")},
      people="described, here",
    )

  @property
  def columns(self):
    texts = [TEXTS[i % len(TEXTS)] for i in range(self.size)]
    columns = {
      "pid": np.arange(self.size, dtype=np.int32) // 2,
      "caption": np.array(texts, object),
      "captions": np.array([[text, f"{text} {i}"] for i, text in enumerate(texts)]),
      "joints": np.random.default_rng(0).random((self.size, 2, 3), np.float32),
    }
    return columns | self.changed

  def __len__(self):
    return self.size

  def __getitem__(self, i):
    if i in self.bad:
      raise BadRecordError(f"described {i} is broken")
    rng = np.random.default_rng(i)
    joints = {"keypoints_xy": rng.random((17, 2), np.float32), "keypoints_visible": rng.random(17) < 0.8}
    columns = {field: column[i] for field, column in self.columns.items()}
    image = rng.integers(0, 256, (24, 12, 3), np.uint8)
    return {"image": image, **joints, **columns, "score": np.float32(rng.random())}

  def name(self, i):
    return f"described {i}"


def open_splits(name, root, splits, **options):
  module = config.load("data/sources", name)
  return [module.open_source(root=str(root), split=split, seed=3, **options) for split in splits]


def synthetic(folder):
  return open_splits("synthetic", folder, ("train", "query"), num_train=9, num_test=5, image_size=(32, 16))


def synthetic_captions(folder):
  options = {"num_train": 2, "num_val": 1, "num_test": 3, "image_size": (32, 16)}
  return open_splits("synthetic_captions", folder, ("train", *VIEWS, "trainval"), **options)


def cuhk_pedes(folder):
  text_files.write_cuhk(folder)
  return open_splits("cuhk_pedes", folder, ("train", "val", *VIEWS))


def icfg_pedes(folder):
  text_files.write_icfg(folder)
  return open_splits("icfg_pedes", folder, ("train", *VIEWS))


def rstpreid(folder):
  text_files.write_rstp(folder)
  return open_splits("rstpreid", folder, ("trainval", *VIEWS))


def tfds(folder):
  pack.write_dataset(folder / "packed", {"train": Described(bad=(1,)), "val": Described(3)}, max_bad_share=1)
  return open_splits("tfds", folder / "packed", ("train", "val", "trainval"))


def luperson(folder):
  luperson_files.write(folder, (Described()[i] for i in range(3)))
  return open_splits("luperson", folder, ("train",), subset="all")


def coco_persons(folder):
  reid_files.write_pictures(folder, ["one.jpg"])
  picture = {"id": 1, "file_name": "one.jpg", "height": 16, "width": 8}
  keypoints = [value for joint in range(17) for value in (joint % 8, joint % 16, 2)]
  people = [coco_files.make_annotation(i, bbox=[0, 0, 8, 16], keypoints=keypoints) for i in (7, 8)]
  (folder / "people.json").write_text(json.dumps(coco_files.make_coco(*people, images=[picture])))
  return open_splits("coco_persons", folder, ("train",), annotations="people.json")


def coco_pose(folder):
  for split in ("train", "val"):
    pose_files.write_coco(folder, split=split)
  return open_splits("coco_pose", folder, ("train", "val"))


def aic_pose(folder):
  pose_files.write_aic(folder, annotations="people.json", images="pictures")
  options = {"annotations": "people.json", "images": "pictures"}
  return [
    *open_splits("aic_pose", folder, ("train",), **{f"train_{key}": value for key, value in options.items()}),
    *open_splits("aic_pose", folder, ("val",), **{f"val_{key}": value for key, value in options.items()}),
  ]


def mpii_pose(folder):
  entries = pose_files.make_entries()
  for split in ("train", "val"):
    pose_files.write_mpii(folder, entries, pose_files.make_truth(entries), split)
  return open_splits("mpii_pose", folder, ("train", "val"))


def mixed(folder):
  parts = []
  for name in (aic_pose, mpii_pose):
    (folder / name.__name__).mkdir()
    parts.append((name.__name__, name(folder / name.__name__)[0]))
  people = open_splits("synthetic", folder, ("train",), num_train=9, image_size=(32, 16))[0]
  persons = ("one", people), ("other", dataclasses.replace(people, seed=4))
  return [config.load("data/sources", "mixed").open_source(parts=tuple(found)) for found in (parts, persons)]


def pw3d(folder):
  drawn_people.write_3dpw(folder / "drawn", num_test=3, image_size=(32, 16), workers=0)
  return open_splits("pw3d", folder / "drawn", ("test",))


def folder(folder):
  reid_files.write_pictures(folder, ["a.jpg", "below/b.jpg"])
  return open_splits("folder", folder, ("all",))


def posed_folder(folder):
  reid_files.write_pictures(folder / "pictures", posed_files.NAMES)
  posed_files.write_poses(folder / "poses")
  return open_splits("posed_folder", folder / "pictures", ("train",), poses=str(folder / "poses"))


def market1501(folder):
  reid_files.write_pictures(folder, reid_files.MARKET)
  return open_splits("market1501", folder, ("train", "query", "gallery"))


def msmt17(folder):
  reid_files.write_pictures(folder, reid_files.MARKET)
  return open_splits("msmt17", folder, ("train", "query", "gallery"))


def identity_folder(folder):
  reid_files.write_pictures(folder, reid_files.PERSONS)
  return open_splits("identity_folder", folder, ("train", "query", "gallery"))


def pa100k(folder):
  attribute_files.write_pa100k(folder)
  return open_splits("pa100k", folder, ("train", "val", "test"))


def rapv1(folder):
  attribute_files.write_rap(folder)
  return open_splits("rapv1", folder, ("train", "test"))


def peta(folder):
  attribute_files.write_peta(folder)
  return open_splits("peta", folder, ("train", "test"))


def attribute_table(folder):
  table_files.write(folder)
  return open_splits("attribute_table", folder, ("train", "val", "test", "trainval"))
