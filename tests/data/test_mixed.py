"""Several data sets as one source: records, person numbers, joints, bad records and batches."""

import dataclasses
import logging
import pickle

import numpy as np
import pytest

from hap_jax.data.loader import Loader
from hap_jax.data.samplers import Sequential, ShuffledEpochs
from hap_jax.data.shares import ShuffledShares
from hap_jax.data.skeletons import AIC14, COCO17, MPII16, Skeleton
from hap_jax.data.sources import base, mixed
from hap_jax.data.transforms.per_data_set import PerDataSet

SIZES = (7, 5, 12)


@dataclasses.dataclass(frozen=True, eq=False)
class People:
  """A source of random people with the joints of a skeleton.

  Attributes:
    label: name of the source, and the seed of its values.
    size: number of records.
    bad: numbers of the records that cannot be read.
    pids: person of each record. (): two records per person, from 0.
    people: name of the numbering of persons.
    labels: names of the attributes.
  """

  label: str
  size: int
  skeleton: Skeleton = COCO17
  bad: tuple[int, ...] = ()
  pids: tuple[int, ...] = ()
  people: str = ""
  labels: tuple[str, ...] = ("hat", "bag")

  @property
  def spec(self):
    fields = ("image", "keypoints_xy", "keypoints_visible", "box", "pid", "attributes")
    return base.SourceSpec(
      self.label,
      self.skeleton,
      f"licence of {self.label}",
      fields,
      notes=(f"{self.size} people",),
      labels={"attributes": self.labels},
      people=self.people or self.label,
    )

  @property
  def columns(self):
    return {"pid": np.array(self.pids or np.arange(self.size) // 2, np.int32)}

  def __len__(self):
    return self.size

  def __getitem__(self, i):
    if i in self.bad:
      raise base.BadRecordError(f"{self.name(i)} is broken")
    rng = np.random.default_rng((len(self.label), i))
    K = len(self.skeleton.joints)
    return {
      "image": rng.integers(0, 256, (4, 4, 3), np.uint8),
      "keypoints_xy": rng.random((K, 2), np.float32),
      "keypoints_visible": np.ones(K, bool),
      "box": rng.random(4, np.float32),
      "pid": self.columns["pid"][i],
      "attributes": rng.random(len(self.labels)) < 0.5,
    }

  def name(self, i):
    return f"{self.label} {i}"


def make_parts(**changes):
  """Returns (label, source) of three data sets with other joints; `changes` are per label."""
  found = {"a": ("a", 7, COCO17), "bb": ("bb", 5, AIC14), "ccc": ("ccc", 12, MPII16)}
  return tuple((label, People(*made, **changes.get(label, {}))) for label, made in found.items())


def join(*parts):
  return mixed.open_source(parts=parts)


def test_records_of_each_data_set_follow_each_other_with_padded_joints():
  parts = make_parts()
  source = join(*parts)
  assert len(source) == sum(SIZES)
  assert [section.name for section in source.sections] == ["a (a)", "bb (bb)", "ccc (ccc)"]
  start = 0
  for d, (_, part) in enumerate(parts):
    for i in range(len(part)):
      record, own = source[start + i], part[i]
      K = len(part.skeleton.joints)
      assert record.keys() == set(source.spec.fields) == {*own, "dataset"}
      assert (record["dataset"], record["dataset"].dtype) == (d, np.int32)
      assert source.name(start + i) == part.name(i)
      assert record["keypoints_xy"].shape == (17, 2)
      np.testing.assert_array_equal(record["keypoints_xy"][:K], own["keypoints_xy"])
      np.testing.assert_array_equal(record["keypoints_visible"], np.arange(17) < K)
      np.testing.assert_array_equal(record["image"], own["image"])
    start += len(part)
  for index in (-1, len(source)):
    with pytest.raises(IndexError):
      source[index]


def test_the_facts_of_all_data_sets_are_kept():
  spec = join(*make_parts()).spec
  assert (spec.name, spec.skeleton) == ("a + bb + ccc", None)
  assert spec.notes == ("a: 7 people", "bb: 5 people", "ccc: 12 people")
  assert [(part.name, part.licence) for part in spec.parts] == [
    (name, f"licence of {name}") for name in ("a", "bb", "ccc")
  ]
  assert join(("a", People("a", 3)), ("b", People("b", 3))).spec.skeleton is COCO17


def test_a_field_whose_values_have_other_names_is_left_out():
  parts = ("a", People("a", 3)), ("b", People("b", 3, labels=("bag", "hat")))
  source = join(*parts)
  assert "attributes" not in source.spec.fields
  assert "attributes" not in source[0]
  assert "attributes" in join(*parts[:1], ("c", People("c", 3))).spec.fields


def test_persons_of_different_data_sets_have_different_numbers():
  one = People("one", 6, pids=(5, 5, 9, 9, -1, -1))
  other, third = People("other", 4, pids=(0, 1, 1, 5)), People("third", 2, pids=(9, 7), people="one")
  source = join(("x", one), ("y", other), ("z", third))
  pid = source.columns["pid"]
  np.testing.assert_array_equal([source[i]["pid"] for i in range(12)], pid)
  assert pid.dtype == np.int32
  persons = [set(pid[section.start : section.stop].tolist()) for section in source.sections]
  assert len(persons[0]) == len(persons[1]) == 3
  assert not persons[0] & persons[1]
  # The third data set has the numbering of the first one, so its person 9 is the same person.
  assert persons[0] & persons[2] == {pid[2]} == {pid[10]}
  assert source.spec.people == "one + 1; other + 11"


def test_more_person_numbers_than_32_bits_are_an_error():
  parts = [(label, People(label, 2, pids=(0, 2**31 - 2))) for label in ("a", "b")]
  with pytest.raises(ValueError, match=r"have 4,294,967,294 person numbers"):
    join(*parts)


def test_data_sets_must_be_opened():
  with pytest.raises(ValueError, match=r"config\.data\.mixed\.parts is empty"):
    mixed.open_source()
  with pytest.raises(ValueError, match="cannot open the data sets coco, aic without a configuration"):
    mixed.open_source(parts=("coco", "aic"))


class Jitter:
  """Adds a random number to the box of a record."""

  def __init__(self, size):
    self.size = size

  def __call__(self, record, rng):
    return {**record, "box": record["box"] + np.float32(self.size * rng.random())}


JITTER = PerDataSet(((Jitter(1),), (Jitter(100), Jitter(100)), ()))


def make_loader(source, sampler, **options):
  return Loader(source, (JITTER,), sampler, seed=1, fields=("image", "box", "dataset"), **options)


SAMPLERS = {
  "shuffled": ShuffledEpochs(sum(SIZES), 4, seed=2),
  "shares": ShuffledShares(SIZES, (0.2, 0.7, 0.1), 4, seed=2),
}


def assert_equal_batches(one, other):
  assert one.keys() == other.keys()
  for name in one:
    np.testing.assert_array_equal(one[name], other[name], err_msg=name, strict=True)


def test_each_data_set_has_its_own_transforms():
  source = join(*make_parts())
  batch = make_loader(source, Sequential(24, 24)).batch(0)
  change = batch["box"] - np.stack([source[i]["box"] for i in range(24)])
  assert 0 < change[:7].min() < change[:7].max() < 1
  assert np.median(change[7:12]) > 1
  assert (change[12:] == 0).all()
  np.testing.assert_array_equal(batch["dataset"], np.repeat([0, 1, 2], SIZES))
  assert set(make_loader(source, Sequential(24, 24)).known_fields) == set(source.spec.fields)


@pytest.mark.parametrize("name", SAMPLERS)
def test_batches_are_the_same_for_any_number_of_processes_and_workers(name):
  source, sampler = join(*make_parts()), SAMPLERS[name]
  whole = make_loader(source, sampler)
  for step in (0, 13):
    parts = [make_loader(source, sampler, process_index=i, process_count=2).batch(step) for i in range(2)]
    joined = {field: np.concatenate([part[field] for part in parts]) for field in parts[0]}
    assert_equal_batches(joined, whole.batch(step))
  with make_loader(source, sampler, workers=1).iterate(4) as batches:
    for step in range(4, 9):
      assert_equal_batches(next(batches), whole.batch(step))


def test_a_record_that_is_drawn_again_in_an_epoch_is_augmented_anew():
  source, sampler = join(*make_parts()), SAMPLERS["shares"]
  loader, boxes = make_loader(source, sampler), {}
  for step in range(sampler.nominal_steps):
    batch = loader.batch(step)
    for index, box in zip(batch["index"].tolist(), batch["box"], strict=True):
      boxes.setdefault(index, []).append(float(box[0]))
  repeated = [found for index, found in boxes.items() if 7 <= index < 12]
  assert max(map(len, repeated)) > 2
  assert all(len(set(found)) == len(found) for found in repeated)


def test_a_bad_record_is_replaced_by_a_record_of_the_same_data_set(caplog):
  source = join(*make_parts(a={"bad": (5, 6)}, ccc={"bad": (11,)}))
  loader = make_loader(source, Sequential(24, 24), max_bad_share=0.3)
  with caplog.at_level(logging.WARNING, logger="absl"):
    batch = loader.batch(0)
  expected = np.arange(24)
  expected[[5, 6, 23]] = 0, 0, 12
  np.testing.assert_array_equal(batch["index"], expected)
  assert "record 23 of" in caplog.text


def test_the_share_of_bad_records_holds_for_each_data_set():
  source = join(*make_parts(bb={"bad": (1, 3)}))
  # Two of 24 records are bad, but they are two of the five records of one data set.
  with pytest.raises(
    ValueError, match=r"2 of 5 records of bb \(bb\) cannot be read, more than the share 0\.2"
  ):
    make_loader(source, Sequential(24, 24), max_bad_share=0.2).batch(0)
  make_loader(source, Sequential(24, 24), max_bad_share=0.4).batch(0)
  source = join(*make_parts(bb={"bad": range(5)}))
  with pytest.raises(ValueError, match=r"none of the 5 records of bb \(bb\) can be read"):
    make_loader(source, Sequential(24, 24), max_bad_share=1).batch(0)


def test_records_are_fetched_if_their_source_can_fetch(monkeypatch):
  parts = make_parts()
  fetched = []

  def fetch(self, i):
    fetched.append((self.label, i))
    return lambda: self[i]

  expected = make_loader(join(*parts), Sequential(24, 24)).batch(0)
  monkeypatch.setattr(People, "fetch", fetch, raising=False)
  assert_equal_batches(make_loader(join(*parts), Sequential(24, 24)).batch(0), expected)
  assert fetched == [(label, i) for label, part in parts for i in range(len(part))]


def test_the_pickle_holds_no_computed_columns():
  source = join(*make_parts())
  before = len(pickle.dumps(source))
  assert source.columns["dataset"].tolist() == np.repeat([0, 1, 2], SIZES).tolist()
  assert len(source) == 24
  assert len(pickle.dumps(source)) == before
