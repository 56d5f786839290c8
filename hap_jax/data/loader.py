"""From records to host batches: in this process or in worker processes, always the same ones.

`batch(step)` is a pure function of the loader's fields and the step; `iterate` yields the same batches
through Grain. A run therefore resumes from its step number alone, and neither the number of workers, nor the
number of processes, nor the place of the resume changes a single pixel.
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

_REPLACEMENT_TRIES = 100  # bad records in a row before the row is given up
_FOR_EVER = 2**62  # steps of an endless order; Grain wants a length that fits 64 bits


@dataclasses.dataclass(frozen=True)
class Loader:
  """Batches of a source in a sampler's order.

  A host batch is {name: [b, ...]} for every field of `source.spec` and every one that a transform adds (or
  those in `fields`), and
    index [b] int32   record numbers (`names` turns them into text),
    valid [b] bool    False: the row only fills up the batch.
  Its b = sampler.batch_size / process_count rows are rows [process_index * b, (process_index + 1) * b) of the
  global batch, so the global batch is the same for any number of processes. Transforms get
  np.random.default_rng((seed, epoch, index)), where `index` is the record that is read. If a batch holds a
  record again, its further rows have other generators (`make_generators`).

  A record that cannot be read (BadRecordError) is replaced by the next good one, index + 1, index + 2, ...;
  the row then carries the replacement's `index`, so an evaluation that drops repeated indices leaves the bad
  record out. `iterate` logs each bad record once, with its file, and raises as soon as the distinct ones that
  this process met since the iterator began are more than max_bad_share of the source: in a small source, the
  first. `batch` knows no history: it logs, and raises on the bad records of that one batch by the same rule.

  Attributes:
    source: records by index.
    transforms: called in turn with (record, rng); after them a field has one shape in all records. One that
      adds fields names them in its attribute `adds`.
    sampler: the order; its num_records is the length of the source.
    seed: not negative.
    process_index, process_count: which slice of each global batch is ours.
    workers: worker processes; 0: read in this process. They are spawned, so the main module is imported anew
      in each and must be safe to import; batches come back in shared memory (/dev/shm), room for about
      read_ahead + 2 batches a worker.
    read_ahead: batches prepared ahead, per worker, or by a thread without workers; 0: none (1 with workers).
    max_bad_share: share of the source that may be bad.
    fields: which of the fields a batch holds; None: all.
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
  fields: tuple[str, ...] | None = None

  def __post_init__(self):
    if len(self.source) != self.sampler.num_records:
      raise ValueError(f"source of {len(self.source)} records, sampler of {self.sampler.num_records}")
    if not 0 <= self.process_index < self.process_count:
      raise ValueError(f"process_index={self.process_index} of process_count={self.process_count}")
    if self.sampler.batch_size % self.process_count:
      raise ValueError(
        f"batch_size={self.sampler.batch_size} does not divide over {self.process_count} processes: "
        "change config.batch_size"
      )
    unknown = set(self.fields or ()) - set(self.known_fields)
    if unknown:
      raise ValueError(
        f"fields {sorted(unknown)} are not among those of the source and its transforms: {self.known_fields}"
      )
    for name in ("seed", "workers", "read_ahead", "max_bad_share"):
      if getattr(self, name) < 0:
        raise ValueError(f"{name}={getattr(self, name)}: expected at least 0")

  @property
  def known_fields(self):
    """The source's fields, then those that transforms add."""
    added = (name for transform in self.transforms for name in getattr(transform, "adds", ()))
    return tuple(dict.fromkeys((*self.source.spec.fields, *added)))

  @property
  def nominal_steps(self):
    """Steps of an epoch as schedules count them; those it truly has may be fewer."""
    return self.sampler.nominal_steps

  @property
  def num_steps(self):
    """Steps of one evaluation pass; None for an endless training order."""
    return self.sampler.num_steps

  def whole(self):
    """Returns the loader of whole global batches, whatever slice of them is this process's."""
    return dataclasses.replace(self, process_index=0, process_count=1)

  def progress(self, step):
    """Epochs done before `step`, a float."""
    return self.sampler.progress(step)

  def first_step(self, epoch):
    """Steps before an epoch begins; a run of N whole epochs has first_step(N) steps."""
    return self.sampler.first_step(epoch)

  def ends_epoch(self, step):
    """Number of whole epochs done if exactly `step` steps end one, else 0."""
    epoch = self.sampler.epoch(step)
    return epoch if self.sampler.first_step(epoch) == step else 0

  def names(self, index):
    """Names the records of a batch's `index` [b], one string each."""
    return [self.source.name(int(i)) for i in index]

  def batch(self, step):
    """Reads the host batch of a step, here and now.

    Raises:
      ValueError: if more of its records are bad than max_bad_share of the source.
    """
    batch, bad = self.read_batch(step)
    self.count_bad(bad, known={})
    return batch

  def iterate(self, start, stop=None):
    """Opens an iterator over the host batches of steps start, start + 1, ... up to `stop`.

    `stop` None: up to `num_steps`, or for ever. The iterator is a context manager; leaving it, or `close()`,
    ends the workers.
    """
    return Batches(self, start, stop)

  def read_batch(self, step):
    """Returns (host batch, {index of a bad record: what is wrong with it}); runs in the worker."""
    epoch = self.sampler.epoch(step)
    b = self.sampler.batch_size // self.process_count
    rows = slice(self.process_index * b, (self.process_index + 1) * b)
    whole = self.sampler.indices(step)
    wanted = [int(i) for i in whole[rows]]
    fields = self.fields or self.known_fields
    bad, batch, read = {}, {}, []
    # Of the whole batch: whether a record is in it twice must not depend on the number of processes.
    rngs = make_generators(self.seed, epoch, whole, rows)
    # All records before the first picture: decoding drives the code that reads them out of the cache.
    reads = [self._fetch(i) for i in wanted]
    for row, (i, rng, read_record) in enumerate(zip(wanted, rngs, reads, strict=True)):
      index, record = self._read_record(epoch, i, rng, read_record, bad)
      read.append(index)
      # Copied at once and not at the end, while the pixels are in the processor's cache.
      for name in fields:
        self._put(batch, name, row, b, np.asarray(record[name]), index)
    batch["index"] = np.array(read, np.int32)
    batch["valid"] = self.sampler.valid(step)[rows]
    return batch, bad

  def _fetch(self, index):
    """Returns a function that returns record `index`; a source may do a part of it here, by `fetch`."""
    if not hasattr(self.source, "fetch"):
      return functools.partial(self.source.__getitem__, index)
    try:
      return self.source.fetch(index)
    except BadRecordError:
      return functools.partial(self.source.fetch, index)  # raises it again, when its turn has come

  def _read_record(self, epoch, wanted, rng, read_record, bad):
    """Returns (index, transformed record) of record `wanted`, or of the next good one; notes bad ones.

    `rng` is the generator of record `wanted`, `read_record` returns it.
    """
    for tried in range(min(_REPLACEMENT_TRIES, len(self.source))):
      index = (wanted + tried) % len(self.source)
      try:
        record = self.source[index] if tried else read_record()
      except BadRecordError as error:
        bad[index] = str(error)
        continue
      if tried:
        rng = np.random.default_rng((self.seed, epoch, index))
      for transform in self.transforms:
        record = transform(record, rng)
      return index, record
    raise ValueError(f"{tried + 1} records in a row cannot be read, from record {wanted} on: {bad[wanted]}")

  def _put(self, batch, name, row, num_rows, value, index):
    """Copies a field of record `index` into a row of batch[name]; the first row brings shape and type."""
    if row == 0:
      batch[name] = np.empty((num_rows, *value.shape), value.dtype)
    rows = batch[name]
    if value.shape != rows.shape[1:] or value.dtype != rows.dtype:
      raise ValueError(
        f"field {name} has shapes {rows.shape[1:]} ({rows.dtype}) and {value.shape} ({value.dtype}) in the "
        f"batch of {self.source.name(index)}: a transform must bring all records to one shape and type"
      )
    rows[row] = value

  def count_bad(self, bad, known):
    """Adds to the `known` bad records {index: what is wrong}, logs the new ones, raises on too many."""
    for index in bad.keys() - known.keys():
      known[index] = bad[index]
      logging.warning(
        "bad record %d of %s replaced by the next: %s", index, self.source.spec.name, bad[index]
      )
    if len(known) > self.max_bad_share * len(self.source):
      raise ValueError(
        f"{len(known)} of {len(self.source)} records of {self.source.spec.name} cannot be read, more than "
        f"the share of {self.max_bad_share:g} that config.data.max_bad_share allows: repair them, leave them "
        f"out, or raise it. The first: {'; '.join(list(known.values())[:3])}"
      )


def make_generators(seed, epoch, index, rows=slice(None)):
  """Makes a NumPy generator for each of these rows of a batch's record numbers `index` [B], no two alike.

  The first row of record i has default_rng((seed, epoch, i)), whatever else is in the batch. Its n-th further
  row has default_rng((seed, epoch, i, 0, n)), so that two rows of one picture are not augmented alike.
  """
  seeds, counts = [], collections.Counter()
  for i in map(int, index):
    seeds.append((seed, epoch, i, 0, counts[i]) if counts[i] else (seed, epoch, i))
    counts[i] += 1
  return [np.random.default_rng(words) for words in seeds[rows]]


class Batches:
  """Iterator over a loader's host batches; made by `Loader.iterate`, owns its thread or worker processes."""

  def __init__(self, loader, start, stop):
    self._loader = loader
    self._known_bad = {}
    self._has_started = False
    stops = [s for s in (stop, loader.num_steps) if s is not None]
    self._batches = _open_grain(loader, start, max(start, min(stops)) if stops else _FOR_EVER)

  def __iter__(self):
    return self

  def __next__(self):
    """Returns the next host batch; raises ValueError when too many records are bad (see Loader)."""
    if self._has_started:
      batch, bad = next(self._batches)
    else:
      with worker_process.without_interrupts():  # Grain starts the workers now
        batch, bad = next(self._batches)
      self._has_started = True
    self._loader.count_bad(bad, self._known_bad)
    return {name: np.asarray(rows) for name, rows in batch.items()}  # plain arrays, not shared-memory ones

  def close(self):
    """Ends the iterator and its workers; more calls do nothing."""
    batches, self._batches = self._batches, iter(())
    if hasattr(batches, "close"):
      batches.close()

  def __enter__(self):
    return self

  def __exit__(self, *exception):
    self.close()


def _open_grain(loader, start, stop):
  """Returns Grain's iterator over (batch, bad records) of steps start .. stop - 1."""
  # Here and not above, because Grain imports jax, which `batch` and the sources do without.
  import grain

  ahead = 0 if loader.workers else loader.read_ahead
  threads = grain.ReadOptions(num_threads=min(ahead, 1), prefetch_buffer_size=ahead)
  dataset = grain.MapDataset.range(start, stop).map(loader.read_batch).to_iter_dataset(threads)
  if not loader.workers:
    cv2.setNumThreads(1)
    return iter(dataset)
  if not flags.FLAGS.is_parsed():
    flags.FLAGS.mark_as_parsed()  # Grain reads absl flags when it starts workers
  processes = grain.MultiprocessingOptions(loader.workers, per_worker_buffer_size=max(1, loader.read_ahead))
  return iter(dataset.mp_prefetch(processes, worker_init_fn=worker_process.prepare))
