"""The loader reads real files: random people in LUPerson's layout."""

import logging
import pathlib
import pickle
import signal
import subprocess
import sys

import numpy as np
import pytest

from hap_jax.data.loader import Loader, make_generators
from hap_jax.data.samplers import Sequential, ShuffledEpochs
from hap_jax.data.sources import luperson
from hap_jax.data.sources.base import BadRecordError
from hap_jax.data.transforms.image import RandomResizedCrop, ResizeWhole
from tests.data import luperson_files

ROOT = pathlib.Path(__file__).parents[2]
NUM_RECORDS = 22
CROP = RandomResizedCrop((32, 16), flip_prob=0.5)


def is_refused(record):
  return record["image"].mean() < 127


class RefuseDark:
  """A transform that does not know the names of the records that it refuses."""

  def __call__(self, record, rng):
    if is_refused(record):
      raise BadRecordError("too dark")
    return record


def write_people(root):
  rng = np.random.default_rng(0)
  sizes = rng.integers((40, 16), (60, 24), (NUM_RECORDS, 2))  # people are tall
  luperson_files.write(
    root,
    (
      {
        "image": rng.integers(0, 256, (H, W, 3), dtype=np.uint8),
        "keypoints_xy": (rng.random((17, 2)) * (W, H)).astype(np.float32),
        "keypoints_visible": rng.random(17) < 0.8,
      }
      for H, W in sizes
    ),
  )
  return luperson.open_source(root=str(root), split="train", seed=0, subset="all")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
  return write_people(tmp_path_factory.mktemp("people"))


@pytest.fixture
def broken(tmp_path):
  """Returns a source with two bad records: 5 has a truncated image, and 6 has no pose file."""
  source = write_people(tmp_path)
  image = pathlib.Path(source.name(5))
  image.write_bytes(image.read_bytes()[:200])
  (tmp_path / luperson.POSE_FOLDER / "0000006.npy").unlink()
  return source


def make_loader(source, batch_size=4, **options):
  return Loader(source, (CROP,), ShuffledEpochs(len(source), batch_size, seed=1), seed=1, **options)


def assert_equal_batches(a, b):
  assert a.keys() == b.keys()
  for name in a:
    assert a[name].dtype == b[name].dtype
    np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def take(loader, start, count):
  with loader.iterate(start) as batches:
    return [next(batches) for _ in range(count)]


def test_batch_has_the_fields_and_index_and_valid(source):
  batch = make_loader(source).batch(3)
  shapes = {name: (rows.shape, rows.dtype) for name, rows in batch.items()}
  assert shapes == {
    "image": ((4, 32, 16, 3), np.uint8),
    "keypoints_xy": ((4, 17, 2), np.float32),
    "keypoints_visible": ((4, 17), bool),
    "index": ((4,), np.int32),
    "valid": ((4,), bool),
  }
  assert all(type(rows) is np.ndarray for rows in batch.values())


def test_row_is_the_record_transformed_with_the_generator_of_the_record(source):
  loader = make_loader(source)
  batch = loader.batch(8)  # the second epoch
  assert loader.sampler.epoch(8) == 1
  np.testing.assert_array_equal(batch["index"], loader.sampler.indices(8))
  for row, index in enumerate(batch["index"]):
    record = CROP(source[index], np.random.default_rng((1, 1, int(index))))
    np.testing.assert_array_equal(batch["image"][row], record["image"])
    np.testing.assert_array_equal(batch["keypoints_xy"][row], record["keypoints_xy"])


@pytest.mark.parametrize("seed", [0, 2**32 + 1, 2**130 + 7])
def test_a_record_that_is_repeated_in_a_batch_gets_another_generator(seed):
  rngs = make_generators(seed, 3, np.array([7, 2, 7, 7, 2, 5], np.int32))
  expected = [(7,), (2,), (7, 0, 1), (7, 0, 2), (2, 0, 1), (5,)]
  for rng, numbers in zip(rngs, expected, strict=True):
    assert rng.bit_generator.state == np.random.default_rng((seed, 3, *numbers)).bit_generator.state
  assert len({rng.random() for rng in rngs}) == 6


def test_a_process_gets_the_generators_of_its_rows():
  index = np.array([7, 2, 7, 7, 2, 5])
  states = [rng.bit_generator.state for rng in make_generators(1, 3, index)]
  assert [rng.bit_generator.state for rng in make_generators(1, 3, index, slice(2, 4))] == states[2:4]


def test_generators_draw_the_numbers_of_published_runs():
  drawn = [rng.integers(2**32, size=2).tolist() for rng in make_generators(231020695, 3, [7, 2, 7, 7])]
  assert drawn == [
    [3293692701, 2933519348],
    [2722145072, 893127741],
    [1074051617, 2866345444],
    [2535608681, 2230324312],
  ]


def test_augmentation_changes_with_the_epoch(source):
  loader = Loader(source, (CROP,), ShuffledEpochs(len(source), len(source), seed=1), seed=1)
  first, second = loader.batch(0), loader.batch(1)
  images = dict(zip(first["index"], first["image"], strict=True))
  unchanged = [
    np.array_equal(images[i], image) for i, image in zip(second["index"], second["image"], strict=True)
  ]
  assert np.mean(unchanged) < 0.1


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_iterate_yields_the_batches_of_the_pure_function_from_any_start(source, workers):
  loader = make_loader(source, workers=workers)
  for step, batch in enumerate(take(loader, start=3, count=5), start=3):  # the epoch ends at step 5
    assert all(type(rows) is np.ndarray for rows in batch.values())
    assert_equal_batches(batch, loader.batch(step))


def test_iterate_without_reading_ahead_yields_the_same_batches(source):
  loader = make_loader(source, read_ahead=0)
  for step, batch in enumerate(take(loader, start=0, count=2)):
    assert_equal_batches(batch, loader.batch(step))


def test_iterate_ends_at_the_given_stop_and_after_close(source):
  loader = make_loader(source)
  with loader.iterate(4, 7) as batches:
    assert len(list(batches)) == 3
  assert list(loader.iterate(7, 7)) == []
  batches = loader.iterate(0)
  next(batches)
  batches.close()
  batches.close()
  assert list(batches) == []


def test_processes_read_contiguous_slices_of_the_same_global_batch(source):
  for step in (0, 6):
    whole = make_loader(source).batch(step)
    parts = [make_loader(source, process_index=i, process_count=2).batch(step) for i in range(2)]
    assert_equal_batches({name: np.concatenate([part[name] for part in parts]) for name in whole}, whole)


def test_two_processes_together_evaluate_each_record_once(source):
  seen = []
  for i in range(2):
    sampler = Sequential(len(source), batch_size=8)
    loader = Loader(source, (ResizeWhole((32, 16)),), sampler, seed=0, process_index=i, process_count=2)
    batches = list(loader.iterate(0))
    assert len(batches) == loader.num_steps == 3
    assert all(batch["image"].shape == (4, 32, 16, 3) for batch in batches)
    seen += [index for batch in batches for index in batch["index"][batch["valid"]]]
  assert sorted(seen) == list(range(NUM_RECORDS))


def test_progress_and_epoch_length_come_from_the_sampler(source):
  loader = make_loader(source)
  assert loader.nominal_steps == 5
  assert loader.num_steps is None
  assert loader.progress(7) == 1.4


def test_names_of_a_batch_are_the_paths_of_its_files(source):
  loader = make_loader(source)
  names = loader.names(loader.batch(0)["index"])
  assert names == [source.name(i) for i in loader.sampler.indices(0)]
  assert all(pathlib.Path(name).is_file() for name in names)


def test_bad_record_is_replaced_by_the_next_good_one_and_logged_once(broken, caplog):
  loader = make_loader(broken, max_bad_share=0.1)
  with caplog.at_level(logging.WARNING, logger="absl"):
    batches = take(loader, start=0, count=10)  # two epochs, each with 20 of 22 records
  seen = np.concatenate([batch["index"] for batch in batches])
  wanted = np.concatenate([loader.sampler.indices(step) for step in range(10)])
  assert {5, 6} <= set(wanted)
  np.testing.assert_array_equal(seen, np.where((wanted == 5) | (wanted == 6), 7, wanted))
  for row in np.flatnonzero(wanted != seen):
    record = CROP(broken[7], np.random.default_rng((1, int(row) // 20, 7)))
    np.testing.assert_array_equal(batches[row // 4]["image"][row % 4], record["image"])
  messages = [
    entry.getMessage() for entry in caplog.records if "cannot be read and is not used" in entry.getMessage()
  ]
  assert len(messages) == 2
  assert any("0000005.jpg" in message for message in messages)
  assert any("0000006.npy" in message and "missing" in message for message in messages)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_record_that_a_transform_refuses_is_replaced_in_an_evaluation_pass(source, workers, caplog):
  loader = Loader(
    *(source, (CROP, RefuseDark()), Sequential(NUM_RECORDS, 4)), seed=1, workers=workers, max_bad_share=0.5
  )
  good = [i for i in range(NUM_RECORDS) if not is_refused(CROP(source[i], np.random.default_rng((1, 0, i))))]
  assert 2 < len(good) < NUM_RECORDS
  with caplog.at_level(logging.WARNING, logger="absl"), loader.iterate(0) as batches:
    batches = list(batches)
  seen = np.concatenate([batch["index"][batch["valid"]] for batch in batches])
  assert sorted(set(seen.tolist())) == good
  for batch in batches:
    for index, image in zip(batch["index"], batch["image"], strict=True):
      expected = CROP(source[int(index)], np.random.default_rng((1, 0, int(index))))
      np.testing.assert_array_equal(image, expected["image"])
  messages = [entry.getMessage() for entry in caplog.records if "is not used" in entry.getMessage()]
  assert len(messages) == NUM_RECORDS - len(good)
  for bad in set(range(NUM_RECORDS)) - set(good):
    assert any(f"{source.name(bad)}: too dark" in message for message in messages)


@pytest.mark.parametrize("workers", [0, 1])
def test_second_bad_record_is_an_error_if_one_is_allowed(broken, workers):
  loader = make_loader(broken, workers=workers, max_bad_share=0.05)  # allows 1.1 of 22 records
  step_of = {bad: next(step for step in range(10) if bad in loader.sampler.indices(step)) for bad in (5, 6)}
  first, second = sorted(step_of.values())
  assert first < second
  seen = []
  with (
    loader.iterate(0, 10) as batches,
    pytest.raises(ValueError, match=r"2 of 22.*max_bad_share.*LUPerson-"),
  ):
    seen.extend(batches)
  assert len(seen) == second
  for step, batch in enumerate(seen):
    wanted = loader.sampler.indices(step)
    np.testing.assert_array_equal(batch["index"], np.where(np.isin(wanted, (5, 6)), 7, wanted))


def test_a_source_with_fetch_gives_the_same_batches(broken):
  class Fetching:
    """A source that reads pixels after `fetch`. Record 6 fails in `fetch`, and record 5 fails after it."""

    spec = broken.spec

    def __len__(self):
      return len(broken)

    def __getitem__(self, i):
      return self.fetch(i)()

    def fetch(self, i):
      if i == 6:
        broken[i]
      return lambda: broken[i]

    def name(self, i):
      return broken.name(i)

  plain, fetching = (make_loader(source, max_bad_share=1) for source in (broken, Fetching()))
  for step in range(5):
    batches, bad, _ = zip(*(loader.read_batch(step) for loader in (plain, fetching)), strict=True)
    assert_equal_batches(*batches)
    assert bad[0] == bad[1]


def test_one_bad_record_is_an_error_in_a_small_source(broken):
  loader = make_loader(broken)
  step = next(step for step in range(10) if set(loader.sampler.indices(step)) & {5, 6})
  with pytest.raises(ValueError, match=r"of 22 records.*share 0\.001.*LUPerson-"):
    loader.batch(step)


def test_source_without_a_good_record_is_an_error(tmp_path):
  source = write_people(tmp_path)
  for pose in (tmp_path / luperson.POSE_FOLDER).iterdir():
    pose.unlink()
  with pytest.raises(ValueError, match="none of the 22 records of luperson can be read"):
    make_loader(source, max_bad_share=1).batch(0)


def test_bad_record_error_can_be_pickled():
  error = pickle.loads(pickle.dumps(BadRecordError("a.jpg: truncated")))
  assert str(error) == "a.jpg: truncated"


def test_error_for_records_of_different_shapes_names_the_field(source):
  loader = Loader(source, (), ShuffledEpochs(len(source), 4, seed=1), seed=1)
  with pytest.raises(ValueError, match=r"field image has shapes .* transform"):
    loader.batch(0)


def test_impossible_settings_are_errors(source):
  with pytest.raises(ValueError, match="batch_size=4 does not divide over 3 processes"):
    make_loader(source, process_count=3)
  with pytest.raises(ValueError, match="process_index=2"):
    make_loader(source, process_index=2, process_count=2)
  with pytest.raises(ValueError, match="source has 22 records, but the sampler has num_records=21"):
    Loader(source, (CROP,), ShuffledEpochs(21, 4, seed=1), seed=1)
  with pytest.raises(ValueError, match="workers=-1"):
    make_loader(source, workers=-1)


_KILLED_RUN = """
import os, signal, sys
from hap_jax.data.loader import Loader
from hap_jax.data.samplers import ShuffledEpochs
from hap_jax.data.sources import luperson
from hap_jax.data.transforms.image import ResizeWhole

source = luperson.open_source(root=sys.argv[1], split="train", seed=0, subset="all")
loader = Loader(source, (ResizeWhole((32, 16)),), ShuffledEpochs(len(source), 4, seed=0), seed=0, workers=1)
batches = loader.iterate(0)
next(batches)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_workers_end_when_the_run_is_killed(tmp_path):
  write_people(tmp_path)
  # A worker keeps the pipe of the output open. So the call returns only after the last worker has ended.
  run = subprocess.run(
    [sys.executable, "-c", _KILLED_RUN, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=120
  )
  assert run.returncode == -signal.SIGKILL, run.stderr


def test_data_modules_do_not_import_jax():
  modules = (
    "loader",
    "samplers",
    "transforms.image",
    "transforms.reid",
    "transforms.canvas",
    "sources.base",
    "sources.luperson",
    "sources.coco_persons",
    "sources.coco_pose",
    "sources.aic_pose",
    "sources.mpii_pose",
    "sources.market1501",
    "sources.msmt17",
    "sources.identity_folder",
    "sources.tfds",
    "pack",
  )
  code = (
    f"import sys, {', '.join('hap_jax.data.' + module for module in modules)}; sys.exit('jax' in sys.modules)"
  )
  subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
