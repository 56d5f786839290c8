"""Makes host batches from records, in this process or in worker processes.

`batch(step)` is a pure function of the loader's fields and the step. `iterate` yields the same batches
through Grain. A run therefore needs only its step number to resume. The pixels of a batch do not depend on
the number of workers, on the number of processes or on the step at which a run resumes.
"""

import collections
import dataclasses
import functools
from collections.abc import Callable

import cv2
import numpy as np
from absl import flags, logging

from hap_jax.data import read_again, samplers, worker_process
from hap_jax.data.samplers import Sampler
from hap_jax.data.sources.base import BadRecordError, Source, sections_of

_REPLACEMENT_TRIES = 100  # largest number of records that are tried for one row of a batch
_FOR_EVER = 2**62  # number of steps of an endless order; Grain requires a finite length of at most 64 bits


@dataclasses.dataclass(frozen=True)
class Loader:
  """Makes host batches of a source's records, in the order of a sampler.

  A host batch is a dictionary {name: [b, ...] array}. The names are the fields of `source.spec` and the
  fields that transforms add, or only the attribute `fields` if it is not None. Each batch also has
    index [b] int32   record numbers (the method `names` converts them to text),
    valid [b] bool    False for a row that only fills up the batch.
  A process reads b = sampler.batch_size / process_count rows of the global batch, starting at row
  process_index * b. So the global batch is the same for any number of processes.

  The transforms of a record get np.random.default_rng((seed, epoch, index)), where `index` is the index of
  the record, and `epoch` is the number of the row from `samplers.passes`. If a batch contains a record more
  than once, its second and later rows have different generators (`make_generators`).

  If a record cannot be read or transformed (BadRecordError), the next good record of the same data set
  replaces it: index + 1, index + 2, ..., and after the last record of the data set its first one. The data
  sets of a source are its sections (`base.sections_of`).
  The row then has the `index` of the replacement. An evaluation drops repeated indices, so the replacement
  is scored only once. The bad record is not scored.

  If a read ends in an error of the storage that may be gone a moment later, it is tried again after each of
  the times `waits` (see `read_again`). Only then the record is bad.

  `iterate` logs each bad record once, with its file. It counts the different bad records since the iterator
  began, and raises ValueError if their number in a data set of n records exceeds max_bad_share * n. In a
  small data set this limit is below 1, so the first bad record raises. `batch` counts only the bad records of
  its own batch.
  `iterate` also counts the records that needed another try, and logs the 1st, 10th, 100th, ... of them.

  Attributes:
    source: source of the records.
    transforms: functions that are called one after the other with (record, rng). After the last transform a
      field must have the same shape in all records. A transform that adds fields lists their names in its
      attribute `adds`.
    sampler: order of the records. Its num_records must equal the length of the source.
    seed: seed of the transforms; not negative.
    process_index, process_count: determine the slice of each global batch that this process reads.
    workers: number of worker processes. 0: this process reads the records. Workers are spawned: each worker
      imports the main module again, so the main module must be safe to import. Batches come back in shared
      memory (/dev/shm), which needs room for about read_ahead + 2 batches per worker.
    read_ahead: number of batches that each worker prepares ahead. Without workers, a thread prepares them. 0:
      no batch is prepared ahead. With workers, 0 has the same effect as 1.
    max_bad_share: largest share of the records of each data set that may be bad.
    bad_share_key: name of the key or option that sets max_bad_share, for error messages. "": there is no such
      key.
    fields: names of the fields in a batch. None: all fields.
    waits: seconds before the second and each further try to read a record. (): one try.
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
  waits: tuple[float, ...] = read_again.WAITS

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
    """Names of the source's fields, followed by the names of the fields that the transforms add."""
    added = (name for transform in self.transforms for name in getattr(transform, "adds", ()))
    return tuple(dict.fromkeys((*self.source.spec.fields, *added)))

  @property
  def nominal_steps(self):
    """Number of steps that schedules count for one epoch. The real epoch may have fewer steps."""
    return self.sampler.nominal_steps

  @property
  def num_steps(self):
    """Number of steps of one evaluation pass. None: the training order is endless."""
    return self.sampler.num_steps

  def whole(self):
    """Returns a copy of the loader that reads whole global batches, not only this process's slice."""
    return dataclasses.replace(self, process_index=0, process_count=1)

  def progress(self, step):
    """Returns the number of epochs done before `step`, as a float."""
    return self.sampler.progress(step)

  def first_step(self, epoch):
    """Returns the number of steps before `epoch`. A run of N whole epochs has first_step(N) steps."""
    return self.sampler.first_step(epoch)

  def ends_epoch(self, step):
    """Returns the number of whole epochs in the first `step` steps, or 0 if no epoch ends there."""
    epoch = self.sampler.epoch(step)
    return epoch if self.sampler.first_step(epoch) == step else 0

  def names(self, index):
    """Returns the names of records, one string per record, for the `index` [b] of a batch."""
    return [self.source.name(int(i)) for i in index]

  def batch(self, step):
    """Reads the host batch of a step in this process.

    Raises:
      ValueError: if the batch has more bad records of a data set than max_bad_share allows.
    """
    batch, bad, repeated = self.read_batch(step)
    self.count_repeated(repeated, 0)
    self.count_bad(bad, known={})
    return batch

  def iterate(self, start, stop=None):
    """Opens an iterator over the host batches of the steps start, start + 1, ..., stop - 1.

    With `stop=None` the last step is num_steps - 1. If num_steps is also None, the iterator never ends. The
    iterator is a context manager. The end of the context, or `close()`, stops the workers.
    """
    return Batches(self, start, stop)

  def read_batch(self, step):
    """Returns (host batch, bad records, records that needed another try). The workers call this method.

    The last two are {index: error message}.
    """
    b = self.sampler.batch_size // self.process_count
    rows = slice(self.process_index * b, (self.process_index + 1) * b)
    whole, epochs = self.sampler.indices(step), samplers.passes(self.sampler, step)
    wanted = [int(i) for i in whole[rows]]
    fields = self.fields or self.known_fields
    bad, batch, read, reader = {}, {}, [], read_again.Reader(self.waits)
    # The generators are computed from the whole global batch, because the two rows of a repeated record may
    # belong to different processes. The result must not depend on the number of processes.
    rngs = make_generators(self.seed, epochs, whole, rows)
    # All records are read before the first picture is decoded. Otherwise decoding would remove the code that
    # reads records from the processor's cache.
    reads = [self._fetch(i) for i in wanted]
    for row, (i, epoch, rng, read_record) in enumerate(
      zip(wanted, epochs[rows].tolist(), rngs, reads, strict=True)
    ):
      index, record = self._read_record(epoch, i, rng, read_record, bad, reader)
      read.append(index)
      # The record is copied into the batch now, while its pixels are still in the processor's cache.
      for name in fields:
        self._put(batch, name, row, b, np.asarray(record[name]), index)
    batch["index"] = np.array(read, np.int32)
    batch["valid"] = self.sampler.valid(step)[rows]
    return batch, bad, reader.repeated

  def _fetch(self, index):
    """Returns a function without arguments that returns record `index`.

    If the source has a method `fetch`, the bytes of the record are read now, and the function decodes them.
    """
    if not hasattr(self.source, "fetch"):
      return functools.partial(self.source.__getitem__, index)
    try:
      return self.source.fetch(index)
    except (BadRecordError, OSError):
      # `_read_record` calls this function. If it gets the same error there, it reads again or replaces it.
      return functools.partial(self.source.__getitem__, index)

  def _read_record(self, epoch, wanted, rng, read_record, bad, reader):
    """Returns (index, transformed record) of record `wanted`, or of the next good record.

    Args:
      epoch: number of the row from `samplers.passes`, a part of the generator's seed.
      wanted: index of the record.
      rng: generator of record `wanted`.
      read_record: function without arguments that returns record `wanted`.
      bad: {index: error message}. The method adds each record that it cannot read.
      reader: the `read_again.Reader` of the batch.
    """
    section = next(section for section in sections_of(self.source) if wanted < section.stop)
    for tried in range(min(_REPLACEMENT_TRIES, section.size)):
      index = section.start + (wanted - section.start + tried) % section.size
      try:
        again = functools.partial(self.source.__getitem__, index)
        record = reader.read(index, again if tried else read_record, again)
      except BadRecordError as error:
        bad.setdefault(index, str(error))  # a later read of the same record gets fewer tries
        continue
      # The replacement gets the generator that it would have if the sampler had chosen it.
      if tried:
        rng = np.random.default_rng((self.seed, epoch, index))
      try:
        for transform in self.transforms:
          record = transform(record, rng)
      except BadRecordError as error:  # a transform does not know the name of the record
        bad[index] = f"{self.source.name(index)}: {error}"
        continue
      return index, record
    if tried + 1 == section.size:
      where = f"none of the {section.size:,} records of {section.name} can be read"
    else:
      where = f"{tried + 1} records in a row cannot be read"
    raise ValueError(f"{where}, starting with record {wanted}: {bad[wanted]}")

  def _put(self, batch, name, row, num_rows, value, index):
    """Copies a field of record `index` into a row of batch[name]. Row 0 sets the shape and the type."""
    if row == 0:
      batch[name] = np.empty((num_rows, *value.shape), value.dtype)
    rows = batch[name]
    if value.shape != rows.shape[1:] or value.dtype != rows.dtype:
      raise ValueError(
        f"field {name} has shapes {rows.shape[1:]} ({rows.dtype}) and {value.shape} ({value.dtype}) in the "
        f"batch of {self.source.name(index)}: the transforms must give all records one shape and type"
      )
    rows[row] = value

  def count_repeated(self, repeated, before):
    """Logs the 1st, 10th, 100th, ... record that needed another try. Returns the number of all of them.

    Args:
      repeated: {index: error message} of these records in a batch.
      before: number of these records in earlier batches.
    """
    after = before + len(repeated)
    if repeated and (not before or len(str(after)) > len(str(before))):
      index, text = list(repeated.items())[-1]
      logging.warning(
        "records of %s that were read only after another try: %d so far. The newest is record %d: %s",
        *(self.source.spec.name, after, index, text),
      )
    return after

  def count_bad(self, bad, known):
    """Adds those records of `bad` {index: error message} to `known` that are new, and logs them.

    Raises:
      ValueError: if `known` then has more records of a data set than max_bad_share allows.
    """
    for index in bad.keys() - known.keys():
      known[index] = bad[index]
      logging.warning(
        "record %d of %s cannot be read and is not used: %s",
        index,
        self.source.spec.name,
        bad[index],
      )
    for section in sections_of(self.source):
      texts = [text for index, text in known.items() if section.start <= index < section.stop]
      if len(texts) <= self.max_bad_share * section.size:
        continue
      allowed, remedy = "", ""
      if key := self.bad_share_key:
        allowed = f", more than the share {self.max_bad_share:g} that {key} allows"
        remedy = f", or raise {key.rpartition('.')[2]}"
      raise ValueError(
        f"{len(texts)} of {section.size} records of {section.name} cannot be read{allowed}: repair or remove "
        f"the records{remedy}. The first: {'; '.join(texts[:3])}"
      )


def make_generators(seed, epochs, index, rows=slice(None)):
  """Makes a different NumPy generator for each row of a batch.

  The first row of record i in epoch e has default_rng((seed, e, i)), for any other content of the batch. If
  record i is repeated in this epoch and batch, the n-th repetition has default_rng((seed, e, i, 0, n)). So
  two rows with the same picture have different augmentations.

  Args:
    seed: seed of the loader.
    epochs: [B] numbers from `samplers.passes`, or one number for all rows.
    index: [B] record indices of the whole batch.
    rows: slice of the rows for which generators are returned.
  Returns:
    list of generators, one per row of `rows`.
  """
  seeds, counts = [], collections.Counter()
  epochs = np.broadcast_to(epochs, len(index))
  for record in zip(epochs.tolist(), map(int, index), strict=True):
    seeds.append((seed, *record, 0, counts[record]) if counts[record] else (seed, *record))
    counts[record] += 1
  return [np.random.default_rng(words) for words in seeds[rows]]


class Batches:
  """Iterator over a loader's host batches, returned by `Loader.iterate`. `close` stops its workers."""

  def __init__(self, loader, start, stop):
    self._loader = loader
    self._known_bad, self._num_repeated = {}, 0
    self._has_started = False
    stops = [s for s in (stop, loader.num_steps) if s is not None]
    self._batches = _open_grain(loader, start, max(start, min(stops)) if stops else _FOR_EVER)

  def __iter__(self):
    return self

  def __next__(self):
    """Returns the next host batch. Raises ValueError if too many records are bad (see `Loader`)."""
    if self._has_started:
      batch, bad, repeated = next(self._batches)
    else:
      with worker_process.without_interrupts():  # the first call of next() starts Grain's workers
        batch, bad, repeated = next(self._batches)
      self._has_started = True
    self._num_repeated = self._loader.count_repeated(repeated, self._num_repeated)
    self._loader.count_bad(bad, self._known_bad)
    return {name: np.asarray(rows) for name, rows in batch.items()}  # plain arrays, not Grain's class

  def close(self):
    """Stops the iterator and its workers. A second call does nothing."""
    batches, self._batches = self._batches, iter(())
    if hasattr(batches, "close"):
      batches.close()

  def __enter__(self):
    return self

  def __exit__(self, *exception):
    self.close()


def _open_grain(loader, start, stop):
  """Returns Grain's iterator over the results of `read_batch` of the steps start, ..., stop - 1."""
  # The import is here because Grain imports jax. `batch` and the sources work without jax.
  import grain

  # Workers read ahead themselves. Only a loader without workers needs a thread that reads ahead.
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
