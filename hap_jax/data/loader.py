"""Makes host batches from records, in this process or in worker processes.

`batch(step)` is a pure function of the loader's fields and the step. `iterate` yields the same batches
through Grain. A run therefore needs only its step number to resume. The number of workers, the number of
processes and the step of the resume do not change a single pixel.
"""

import collections
import dataclasses
import functools
from collections.abc import Callable

import cv2
import numpy as np
from absl import flags, logging

from hap_jax.data import worker_process
from hap_jax.data.samplers import Sampler
from hap_jax.data.sources.base import BadRecordError, Source

_REPLACEMENT_TRIES = 100  # most records that are tried for one row of a batch
_FOR_EVER = 2**62  # steps of an endless order; Grain requires a length that fits 64 bits


@dataclasses.dataclass(frozen=True)
class Loader:
  """Batches of a source in a sampler's order.

  A host batch is {name: [b, ...]}. The names are the fields of `source.spec` and the fields that transforms
  add, or only `fields` if it is given. Each batch also has
    index [b] int32   record numbers (`names` turns them into text),
    valid [b] bool    False: the row only fills up the batch.
  A process reads b = sampler.batch_size / process_count rows of the global batch: rows [process_index * b,
  (process_index + 1) * b). So the global batch is the same for any number of processes.

  Transforms get np.random.default_rng((seed, epoch, index)), where `index` is the record that is read. If a
  batch contains a record more than once, its later rows have other generators (`make_generators`).

  A record that cannot be read (BadRecordError) is replaced by the next good one: index + 1, index + 2, ...
  The row then has the `index` of the replacement. An evaluation drops repeated indices, so it leaves the bad
  record out. `iterate` logs each bad record once, with its file. It counts the different bad records since
  the iterator began, and raises if they exceed the share max_bad_share of the source. In a small source the
  first bad record raises. `batch` has no history: it applies the same rule to the bad records of its one
  batch.

  Attributes:
    source: records by index.
    transforms: functions that are called in turn with (record, rng). After them a field has the same shape in
      all records. A transform that adds fields lists their names in its attribute `adds`.
    sampler: order of the records. Its num_records must equal the length of the source.
    seed: seed of the transforms; not negative.
    process_index, process_count: they choose this process's slice of each global batch.
    workers: number of worker processes. 0: read in this process. Workers are spawned: each imports the main
      module again, so that module must be safe to import. Batches come back in shared memory (/dev/shm),
      which needs room for about read_ahead + 2 batches per worker.
    read_ahead: number of batches prepared ahead, per worker; without workers a thread prepares them. 0: none
      (with workers: 1).
    max_bad_share: largest share of the source's records that may be bad.
    bad_share_key: the key or option that sets max_bad_share, for error messages. "": there is none.
    fields: names of the fields in a batch. None: all fields.
  """

  source: Source
  transforms: tuple[Callable, ...]
  sampler: Sampler
  seed: int
  process_index: int = 0
  process_count: int = 1
  workers: int = 0
  read_ahead: int = 2
  max_bad_share: float = 0.001
  bad_share_key: str = "config.data.max_bad_share"
  fields: tuple[str, ...] | None = None

  def __post_init__(self):
    if len(self.source) != self.sampler.num_records:
      raise ValueError(
        f"the source has {len(self.source)} records, but the sampler has num_records="
        f"{self.sampler.num_records}; expected the same number"
      )
    if not 0 <= self.process_index < self.process_count:
      raise ValueError(
        f"process_index={self.process_index}: expected 0 or more, and less than "
        f"process_count={self.process_count}"
      )
    if self.sampler.batch_size % self.process_count:
      raise ValueError(
        f"batch_size={self.sampler.batch_size} does not divide over {self.process_count} processes: "
        "change config.batch_size"
      )
    unknown = set(self.fields or ()) - set(self.known_fields)
    if unknown:
      raise ValueError(
        f"fields {sorted(unknown)} are unknown; the source and its transforms have {self.known_fields}"
      )
    for name in ("seed", "workers", "read_ahead", "max_bad_share"):
      if getattr(self, name) < 0:
        raise ValueError(f"{name}={getattr(self, name)}: expected at least 0")

  @property
  def known_fields(self):
    """The fields of the source, then the fields that the transforms add."""
    added = (name for transform in self.transforms for name in getattr(transform, "adds", ()))
    return tuple(dict.fromkeys((*self.source.spec.fields, *added)))

  @property
  def nominal_steps(self):
    """Number of steps of an epoch that schedules use. The true number may be smaller."""
    return self.sampler.nominal_steps

  @property
  def num_steps(self):
    """Number of steps of one evaluation pass. None: the training order is endless."""
    return self.sampler.num_steps

  def whole(self):
    """Returns a loader that reads whole global batches instead of this process's slice."""
    return dataclasses.replace(self, process_index=0, process_count=1)

  def progress(self, step):
    """Returns the number of epochs done before `step`, a float."""
    return self.sampler.progress(step)

  def first_step(self, epoch):
    """Returns the number of steps before `epoch` begins. A run of N whole epochs has first_step(N) steps."""
    return self.sampler.first_step(epoch)

  def ends_epoch(self, step):
    """Returns the number of whole epochs after `step` steps, or 0 if an epoch does not end there."""
    epoch = self.sampler.epoch(step)
    return epoch if self.sampler.first_step(epoch) == step else 0

  def names(self, index):
    """Returns the names of the records of a batch's `index` [b]: one string per record."""
    return [self.source.name(int(i)) for i in index]

  def batch(self, step):
    """Reads the host batch of a step in this process.

    Raises:
      ValueError: if its bad records exceed the share max_bad_share of the source.
    """
    batch, bad = self.read_batch(step)
    self.count_bad(bad, known={})
    return batch

  def iterate(self, start, stop=None):
    """Opens an iterator over the host batches of the steps start, start + 1, ..., stop - 1.

    With `stop=None` it goes on to `num_steps`, or without end. The iterator is a context manager. The end of
    the context, or `close()`, ends the workers.
    """
    return Batches(self, start, stop)

  def read_batch(self, step):
    """Returns (host batch, {index of a bad record: error message}). A worker calls it."""
    epoch = self.sampler.epoch(step)
    b = self.sampler.batch_size // self.process_count
    rows = slice(self.process_index * b, (self.process_index + 1) * b)
    whole = self.sampler.indices(step)
    wanted = [int(i) for i in whole[rows]]
    fields = self.fields or self.known_fields
    bad, batch, read = {}, {}, []
    # Generators depend on the whole batch, so that the number of processes does not matter when a batch
    # contains a record twice.
    rngs = make_generators(self.seed, epoch, whole, rows)
    # All records are read before the first picture is decoded. Decoding in between would push the code that
    # reads records out of the processor's cache.
    reads = [self._fetch(i) for i in wanted]
    for row, (i, rng, read_record) in enumerate(zip(wanted, rngs, reads, strict=True)):
      index, record = self._read_record(epoch, i, rng, read_record, bad)
      read.append(index)
      # Copied now and not at the end, because the pixels are still in the processor's cache.
      for name in fields:
        self._put(batch, name, row, b, np.asarray(record[name]), index)
    batch["index"] = np.array(read, np.int32)
    batch["valid"] = self.sampler.valid(step)[rows]
    return batch, bad

  def _fetch(self, index):
    """Returns a function that returns record `index`. A source with `fetch` does a part of the work here."""
    if not hasattr(self.source, "fetch"):
      return functools.partial(self.source.__getitem__, index)
    try:
      return self.source.fetch(index)
    except BadRecordError:
      return functools.partial(self.source.fetch, index)  # the call raises the error again, in its row's turn

  def _read_record(self, epoch, wanted, rng, read_record, bad):
    """Returns (index, transformed record) of record `wanted`, or of the next good record.

    Args:
      epoch: epoch number, a part of the generator's seed.
      wanted: number of the record.
      rng: generator of record `wanted`.
      read_record: function that returns record `wanted`.
      bad: {index: error message}; the bad records that it meets are added.
    """
    for tried in range(min(_REPLACEMENT_TRIES, len(self.source))):
      index = (wanted + tried) % len(self.source)
      try:
        record = self.source[index] if tried else read_record()
      except BadRecordError as error:
        bad[index] = str(error)
        continue
      # A replacement is augmented by its own generator, as if the sampler had chosen it.
      if tried:
        rng = np.random.default_rng((self.seed, epoch, index))
      for transform in self.transforms:
        record = transform(record, rng)
      return index, record
    if tried + 1 == len(self.source):
      where = f"none of the {len(self.source):,} records of {self.source.spec.name} can be read"
    else:
      where = f"{tried + 1} records in a row cannot be read"
    raise ValueError(f"{where}, starting with record {wanted}: {bad[wanted]}")

  def _put(self, batch, name, row, num_rows, value, index):
    """Copies a field of record `index` into a row of batch[name]. The first row sets the shape and type."""
    if row == 0:
      batch[name] = np.empty((num_rows, *value.shape), value.dtype)
    rows = batch[name]
    if value.shape != rows.shape[1:] or value.dtype != rows.dtype:
      raise ValueError(
        f"field {name} has shapes {rows.shape[1:]} ({rows.dtype}) and {value.shape} ({value.dtype}) in the "
        f"batch of {self.source.name(index)}: the transforms must give all records one shape and type"
      )
    rows[row] = value

  def count_bad(self, bad, known):
    """Adds the new records of `bad` {index: error message} to `known` and logs them.

    Raises:
      ValueError: if `known` exceeds the share max_bad_share of the source.
    """
    for index in bad.keys() - known.keys():
      known[index] = bad[index]
      logging.warning(
        "bad record %d of %s is replaced by the next: %s", index, self.source.spec.name, bad[index]
      )
    if len(known) > self.max_bad_share * len(self.source):
      allowed, remedy = "", ""
      if key := self.bad_share_key:
        allowed = f", more than the share {self.max_bad_share:g} that {key} allows"
        remedy = f", or raise {key.rpartition('.')[2]}"
      raise ValueError(
        f"{len(known)} of {len(self.source)} records of {self.source.spec.name} cannot be read{allowed}: "
        f"repair or remove the records{remedy}. The first: {'; '.join(list(known.values())[:3])}"
      )


def make_generators(seed, epoch, index, rows=slice(None)):
  """Makes a different NumPy generator for each row of a batch.

  The first row of record i has default_rng((seed, epoch, i)), independent of the rest of the batch. Its n-th
  repeated row has default_rng((seed, epoch, i, 0, n)), so that two rows of one picture get different
  augmentations.

  Args:
    seed: seed of the loader.
    epoch: epoch number of the batch.
    index: [B] record numbers of the whole batch.
    rows: slice of the rows whose generators are returned.
  Returns:
    list of generators, one per row of `rows`.
  """
  seeds, counts = [], collections.Counter()
  for i in map(int, index):
    seeds.append((seed, epoch, i, 0, counts[i]) if counts[i] else (seed, epoch, i))
    counts[i] += 1
  return [np.random.default_rng(words) for words in seeds[rows]]


class Batches:
  """Iterator over a loader's host batches, made by `Loader.iterate`. It owns its thread or its workers."""

  def __init__(self, loader, start, stop):
    self._loader = loader
    self._known_bad = {}
    self._has_started = False
    stops = [s for s in (stop, loader.num_steps) if s is not None]
    self._batches = _open_grain(loader, start, max(start, min(stops)) if stops else _FOR_EVER)

  def __iter__(self):
    return self

  def __next__(self):
    """Returns the next host batch. Raises ValueError if too many records are bad (see `Loader`)."""
    if self._has_started:
      batch, bad = next(self._batches)
    else:
      with worker_process.without_interrupts():  # the first call of next() starts Grain's workers
        batch, bad = next(self._batches)
      self._has_started = True
    self._loader.count_bad(bad, self._known_bad)
    return {name: np.asarray(rows) for name, rows in batch.items()}  # plain arrays, not Grain's class

  def close(self):
    """Ends the iterator and its workers. A second call does nothing."""
    batches, self._batches = self._batches, iter(())
    if hasattr(batches, "close"):
      batches.close()

  def __enter__(self):
    return self

  def __exit__(self, *exception):
    self.close()


def _open_grain(loader, start, stop):
  """Returns Grain's iterator over (batch, bad records) of the steps start, ..., stop - 1."""
  # Imported here because Grain imports jax, and `batch` and the sources work without jax.
  import grain

  # Workers read ahead by themselves, so the thread is only for a loader without workers.
  ahead = 0 if loader.workers else loader.read_ahead
  threads = grain.ReadOptions(num_threads=min(ahead, 1), prefetch_buffer_size=ahead)
  dataset = grain.MapDataset.range(start, stop).map(loader.read_batch).to_iter_dataset(threads)
  if not loader.workers:
    cv2.setNumThreads(1)
    return iter(dataset)
  if not flags.FLAGS.is_parsed():
    flags.FLAGS.mark_as_parsed()  # Grain reads absl flags when it starts workers, and fails on unparsed flags
  processes = grain.MultiprocessingOptions(loader.workers, per_worker_buffer_size=max(1, loader.read_ahead))
  return iter(dataset.mp_prefetch(processes, worker_init_fn=worker_process.prepare))
