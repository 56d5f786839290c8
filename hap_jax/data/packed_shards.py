"""Opens the ArrayRecord shards of a packed data set and compares them with its metadata."""

import concurrent.futures
import dataclasses
import os

from array_record.python.array_record_data_source import ArrayRecordDataSource
from array_record.python.array_record_module import ArrayRecordReader

from hap_jax.io import regular_file

# Number of shards that are opened at the same time. On a network disk, opening a shard takes a long time.
_THREADS = 16


@dataclasses.dataclass(frozen=True)
class _Shard:
  """A whole shard. It has the attributes that ArrayRecordDataSource expects of a FileInstruction."""

  filename: str
  examples_in_shard: int
  skip: int = 0

  @property
  def take(self):
    return self.examples_in_shard


def open_shards(splits):
  """Opens the shards of `splits` (see `packed_metadata.Split`) as one sequence of records.

  Returns:
    ArrayRecord's reader. reader[i] returns the bytes of record i. Its pickle does not contain the open files.

  Raises:
    ValueError: if a shard is damaged, or its number of records differs from the metadata.
  """
  shards = [
    _Shard(path, length) for split in splits for path, length in zip(split.shards, split.lengths, strict=True)
  ]
  with concurrent.futures.ThreadPoolExecutor(min(_THREADS, len(shards))) as pool:
    for _ in pool.map(_check, shards):
      pass  # `_check` returns nothing. The loop raises the first error of a thread
  return ArrayRecordDataSource(shards)


def _check(shard):
  """Raises ValueError if a shard cannot be read, or does not have the expected number of records."""
  remedy = "copy this file again, or pack the data set again"
  try:
    regular_file.open_regular(shard.filename).close()  # rejects a FIFO: ArrayRecord would wait forever
    how = "readahead_buffer_size:0,max_parallelism:0"  # no threads: only the index is read
    reader = ArrayRecordReader(shard.filename, options=how, file_reader_buffer_size=2**15)
    found = reader.num_records()
    reader.close()
  except (RuntimeError, ValueError, OSError, IndexError, TypeError) as error:
    text = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
    raise ValueError(f"{shard.filename}: this shard cannot be read: {text}; {remedy}") from error
  if found != shard.examples_in_shard:
    info = os.path.join(os.path.dirname(shard.filename), "dataset_info.json")
    raise ValueError(
      f"{shard.filename}: this shard has {found} records, but {info} says {shard.examples_in_shard}; {remedy}"
    )
