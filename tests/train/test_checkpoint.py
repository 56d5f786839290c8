"""The checkpoints of a run: damage, failed saves, removal of older checkpoints, and the best checkpoint."""

import contextlib
import json
import pathlib
import resource
import subprocess
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hap_jax import sharding
from hap_jax.description import Description, Encoder
from hap_jax.io import checkpoint_digests, checkpoint_file, checkpoint_list
from hap_jax.train import checkpoint
from hap_jax.train.state import TrainState
from tests import damage
from tests.io.full_disk import files_end_at

DESCRIPTION = Description("reid", Encoder(width=3, depth=1, num_heads=1, grid=(1, 1), patch=1))
SELECT = ("mAP", "max")
BAND = 200  # width of the arrays, so that a limit on the size of a file stops only the arrays


@pytest.fixture
def lines():
  return []


def state_of(step):
  """Returns a TrainState with all parts. Its arrays depend on the step, and they are hard to compress."""
  rng = np.random.default_rng(step)
  params = {"w": jnp.asarray(rng.normal(size=(16, BAND)), jnp.float32)}
  stats = {"batch_stats": {"mean": jnp.full(3, float(step))}}
  average = jax.tree.map(lambda x: x + 1, {"params": params, **stats})
  moments = ({"mu": jnp.full(3, float(step)), "count": jnp.int32(step)},)
  return TrainState(jnp.int32(step), params, stats, moments, average)


def opened(workdir, lines, **options):
  return checkpoint.Checkpoints(workdir, **{"keep_last": 3, "say": lines.append} | options)


def save(workdir, *steps, **options):
  """Saves checkpoints. Returns the lines that were printed."""
  lines = []
  with opened(workdir, lines, **options) as checkpoints:
    for step in steps:
      checkpoints.save(step, state_of(step), DESCRIPTION)
  return lines


def steps_of(workdir, folder="checkpoints"):
  return sorted(checkpoint_list.steps(workdir / folder))


def assert_restores(workdir, step, lines, **mesh):
  """Checks that the newest whole checkpoint is of this step, and that the devices of a mesh get its bits."""
  mesh = sharding.make_mesh(**mesh)
  expected = state_of(step)
  places = sharding.places(expected, mesh)
  shapes = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), expected, places)
  with opened(workdir, lines) as checkpoints:
    assert checkpoints.latest_step() == step
    assert checkpoints.description().more["step"] == step
    restored = checkpoints.restore(step, shapes)
  jax.tree.map(np.testing.assert_array_equal, restored, expected)
  assert jax.tree.map(lambda x: x.sharding, restored) == places


@pytest.mark.parametrize("kind", ["flip", "halve", "remove", "unfinished", "emptied"])
def test_a_run_continues_from_the_newest_whole_checkpoint(tmp_path, lines, kind):
  save(tmp_path, 2, 4, 6)
  newest, rng = tmp_path / "checkpoints/6", np.random.default_rng(1)
  largest = damage.largest(newest)
  if kind == "flip":
    damage.flip(largest, rng)
  elif kind == "halve":
    damage.halve(largest)
  elif kind == "remove":
    largest.unlink()
  elif kind == "unfinished":
    (newest / "digests.json").unlink()
  else:
    for path in damage.files_of(newest):
      path.unlink()
  assert_restores(tmp_path, 4, lines, data=4, fsdp=2)
  assert len(lines) == 1
  assert lines[0].startswith(f"checkpoint {newest} is damaged: ")
  assert lines[0].endswith("It is kept as 6.damaged")
  assert (tmp_path / "checkpoints/6.damaged").is_dir()
  # The run reaches step 6 again. The older damaged checkpoint does not matter any more, so no line names it.
  assert save(tmp_path, 6) == []
  assert steps_of(tmp_path) == [2, 4, 6]
  assert_restores(tmp_path, 6, lines)
  assert len(lines) == 1


def test_no_whole_checkpoint_is_an_error_at_every_start(tmp_path, lines):
  save(tmp_path, 2, 4)
  rng = np.random.default_rng(0)
  for step in (2, 4):
    damage.flip(tmp_path / f"checkpoints/{step}/state/manifest.ocdbt", rng)
  for _ in range(2):
    with pytest.raises(
      ValueError, match=r"no whole checkpoint: 4 \(state/manifest.ocdbt has changed .* 2 \("
    ):
      opened(tmp_path, lines)
  assert steps_of(tmp_path) == [2, 4]


def test_old_checkpoints_without_digests_are_used_with_a_note(tmp_path, lines):
  save(tmp_path, 2, 4)
  for step in (2, 4):
    (tmp_path / f"checkpoints/{step}/digests.json").unlink()
  assert_restores(tmp_path, 4, lines)
  assert lines == [f"checkpoint {tmp_path}/checkpoints/4: {checkpoint_list.NO_DIGESTS}"]
  assert save(tmp_path, 6)[1:] == []
  assert_restores(tmp_path, 6, lines)


def test_a_checkpoint_of_another_network_does_not_fit(tmp_path, lines):
  save(tmp_path, 2)
  shapes = jax.eval_shape(lambda: state_of(2))
  for change, message in (
    (
      {"params": {"w": jax.ShapeDtypeStruct((16, 3), jnp.float32)}},
      r"params/w is float32 \[16, 200\], exp.*3\]",
    ),
    ({"params": {}}, "the configuration has no array params/w"),
    ({"model_state": {**shapes.model_state, "n": shapes.step}}, "the checkpoint has no array model_state/n"),
  ):
    shards = jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding.replicated(sharding.make_mesh())),
      shapes.replace(**change),
    )
    with opened(tmp_path, lines) as checkpoints, pytest.raises(ValueError, match=f"does not fit.*{message}"):
      checkpoints.restore(2, shards)


def test_the_state_is_copied_before_save_returns(tmp_path, lines):
  """The next step overwrites the buffers of the state while the thread still writes."""
  state = state_of(2)
  overwrite = jax.jit(lambda tree: jax.tree.map(lambda x: x * 0 - 7, tree), donate_argnums=0)
  with opened(tmp_path, lines) as checkpoints:
    checkpoints.save(2, state, DESCRIPTION)
    jax.block_until_ready(overwrite(state))
  assert_restores(tmp_path, 2, lines)


def test_the_newest_checkpoints_and_the_multiples_of_keep_every_are_kept(tmp_path):
  save(tmp_path, *range(1, 9), keep_last=2, keep_every=3)
  assert steps_of(tmp_path) == [3, 6, 7, 8]
  with pytest.raises(ValueError, match=r"config\.keep_last=0: expected at least 1"):
    save(tmp_path, 9, keep_last=0)


def test_a_failed_save_gives_one_line_and_the_next_save_tries_again(tmp_path, lines, caplog, capfd):
  path = tmp_path / "checkpoints"
  save(tmp_path, 2)
  before = sorted(path.rglob("*"))
  with opened(tmp_path, lines, keep_last=1) as checkpoints:
    with files_end_at(10_000):
      checkpoints.save(4, state_of(4), DESCRIPTION)
      checkpoints.save(4, state_of(4), DESCRIPTION)  # a stop signal comes right after the regular save
      with pytest.raises(checkpoint.UnsavedError, match="checkpoints/4 was not saved"):
        checkpoints.finish()
    assert sorted(path.rglob("*")) == before
    assert len(lines) == 2
    assert lines[0].startswith(f"{path}/4 was not saved: File too large (it needs 0.03 MB, and the disk has")
    assert lines[0].endswith("left). Older checkpoints are kept. The next save tries again")
    checkpoints.save(6, state_of(6), DESCRIPTION)
  assert len(lines) == 2
  assert (capfd.readouterr().err, caplog.text) == ("", "")  # no traceback of a thread of Orbax
  assert steps_of(tmp_path) == [6]
  assert_restores(tmp_path, 6, lines)


@pytest.fixture
def small_disk(tmp_path):
  """Returns the folder of a disk of 512 kB. Only root can mount one."""
  folder = tmp_path / "disk"
  folder.mkdir()
  command = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(folder)]
  try:
    subprocess.run(command, check=True, capture_output=True)
  except (OSError, subprocess.CalledProcessError) as error:
    pytest.skip(f"a small disk cannot be mounted: {error}")
  yield folder
  subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_gives_one_line_and_the_next_save_with_free_space_succeeds(small_disk, lines):
  save(small_disk, 2)
  before = sorted(small_disk.rglob("*"))
  ballast = small_disk / "ballast"
  with opened(small_disk, lines) as checkpoints:
    with contextlib.suppress(OSError):
      ballast.write_bytes(bytes(512 << 10))
    checkpoints.save(4, state_of(4), DESCRIPTION)
    with pytest.raises(checkpoint.UnsavedError):
      checkpoints.finish()
    ballast.unlink()
    assert sorted(small_disk.rglob("*")) == before
    checkpoints.save(6, state_of(6), DESCRIPTION)
  assert len(lines) == 1
  assert "4 was not saved: No space left on device (it needs 0.03 MB, and the disk has 0.00" in lines[0]
  assert steps_of(small_disk) == [2, 6]
  assert_restores(small_disk, 6, lines)


def test_a_run_whose_last_save_failed_ends_with_an_error(tmp_path, lines):
  def run():
    with opened(tmp_path, lines) as checkpoints:
      checkpoints.save(2, state_of(2), DESCRIPTION)
      checkpoints.finish()
      resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))
      checkpoints.save(4, state_of(4), DESCRIPTION)

  with (
    files_end_at(10**9),  # sets the old limit again
    pytest.raises(checkpoint.UnsavedError, match="checkpoints/4 was not saved: File too large"),
  ):
    run()
  assert steps_of(tmp_path) == [2]


def test_a_checkpoint_that_differs_when_read_back_replaces_no_older_checkpoint(tmp_path, lines, monkeypatch):
  read_back = checkpoint_file._read_back

  def after_damage(folder, digests):
    """Rewrites the arrays of the checkpoint with other values, as a faulty memory does before the write."""
    for path in damage.files_of(folder / "state"):
      path.unlink()
    handler = checkpoint_file.ocp.PyTreeCheckpointHandler()
    changed = state_of(4).replace(step=jnp.int32(5))
    handler.save(folder / "state", args=checkpoint_file.ocp.args.PyTreeSave(jax.device_get(changed)))
    handler.finalize(folder / "state")
    read_back(folder, digests)

  save(tmp_path, 2)
  monkeypatch.setattr(checkpoint_file, "_read_back", after_damage)
  with (
    pytest.raises(checkpoint.UnsavedError, match="array step differs from the array that was saved"),
    opened(tmp_path, lines, keep_last=1) as checkpoints,
  ):
    checkpoints.save(4, state_of(4), DESCRIPTION)
  assert steps_of(tmp_path) == [2]


def keep(workdir, step, value, say=print):
  """Calls `keep_best` with weights that all equal `step`. Returns True if they were saved."""
  state = types.SimpleNamespace(eval_variables={"params": {"w": jnp.full(3, float(step))}})
  with checkpoint.Checkpoints(workdir, keep_last=1, say=say) as checkpoints:
    return checkpoints.keep_best(step, state, DESCRIPTION, {"mAP": value}, SELECT)


def best(workdir):
  variables, description = checkpoint_file.read(workdir / checkpoint.BEST_FOLDER)
  np.testing.assert_array_equal(variables["params"]["w"], np.full(3, description["step"]))
  assert len(list((workdir / "best").glob("[0-9]*[0-9]"))) == 1
  return description["step"], description["scores"]["mAP"]


def test_a_resumed_run_replaces_the_best_checkpoint_at_the_same_or_an_earlier_step(tmp_path):
  assert keep(tmp_path, 20, 0.5)
  assert not keep(tmp_path, 10, 0.5)
  assert best(tmp_path) == (20, 0.5)
  assert keep(tmp_path, 20, 0.5000001)  # the same step on other devices may differ by a rounding error
  assert best(tmp_path) == (20, 0.5000001)
  assert keep(tmp_path, 10, 0.6)
  assert best(tmp_path) == (10, 0.6)
  assert keep(tmp_path, 20, 0.7)
  assert best(tmp_path) == (20, 0.7)


def test_a_damaged_best_checkpoint_is_renamed_and_the_next_scores_start_a_new_one(tmp_path, lines):
  assert keep(tmp_path, 20, 0.5)
  damage.flip(tmp_path / "best/20/state/manifest.ocdbt", np.random.default_rng(0))
  assert keep(tmp_path, 30, 0.4, lines.append)
  assert best(tmp_path) == (30, 0.4)
  assert [line.partition(" is damaged: ")[0] for line in lines] == [f"checkpoint {tmp_path}/best/20"]
  # Without digests, as an older version wrote it, the description may be damaged too.
  for path in (tmp_path / "best").glob("30/digests.json"):
    path.unlink()
  for path in (tmp_path / "best").glob("20.damaged*/digests.json"):
    path.unlink()
  pathlib.Path(tmp_path / "best/30/description/metadata").write_text(json.dumps({"step": 30}))
  assert keep(tmp_path, 40, 0.3, lines.append)
  assert "best/30 is damaged: its description records no mAP. It is kept as 30.damaged" in lines[-1]
  assert best(tmp_path) == (40, 0.3)


def test_the_older_best_checkpoint_is_kept_if_the_new_one_cannot_be_saved(tmp_path, lines):
  assert keep(tmp_path, 20, 0.5)
  state = types.SimpleNamespace(eval_variables=state_of(30).eval_variables)
  with opened(tmp_path, lines) as checkpoints:
    with files_end_at(10_000):
      assert not checkpoints.keep_best(30, state, DESCRIPTION, {"mAP": 0.6}, SELECT)
    assert best(tmp_path) == (20, 0.5)
    assert lines[0].startswith(f"{tmp_path}/best/30 was not saved: File too large (it needs 0.01 MB")
    with pytest.raises(checkpoint.UnsavedError, match="best/30 was not saved"):
      checkpoints.finish()
    assert checkpoints.keep_best(40, state, DESCRIPTION, {"mAP": 0.55}, SELECT)
  assert len(lines) == 1
  assert steps_of(tmp_path, "best") == [40]
  assert checkpoint_digests.find_damage(tmp_path / "best/40") is None
