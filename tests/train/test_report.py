"""The files of the metric writer and the numbers of the progress line."""

import json
import logging
import math
import resource
import signal
import subprocess
import sys

import cv2
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from hap_jax.train.report import MetricWriter, Progress, format_seconds, has_scores, read_metrics


def write_rows(workdir, rows):
  writer = MetricWriter(workdir)
  for step, scalars in rows:
    writer.write_scalars(step, scalars)
  writer.close()


def test_rows_are_read_in_order_with_step_first(tmp_path):
  write_rows(tmp_path, [(10, {"loss": 0.5, "lr": 1e-3}), (20, {"loss": np.float32(0.25), "lr": 2e-3})])
  lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
  assert lines[0] == '{"step": 10, "loss": 0.5, "lr": 0.001}'
  assert read_metrics(tmp_path) == [
    {"step": 10, "loss": 0.5, "lr": 0.001},
    {"step": 20, "loss": 0.25, "lr": 0.002},
  ]


def test_after_a_resume_the_last_row_of_a_step_is_used(tmp_path):
  write_rows(tmp_path, [(1, {"loss": 3.0}), (2, {"loss": 2.0}), (3, {"loss": 1.0})])
  write_rows(tmp_path, [(2, {"loss": 2.5}), (3, {"loss": 1.5})])
  # The file keeps all lines, only the reader merges them.
  assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 5
  assert [row["loss"] for row in read_metrics(tmp_path / "metrics.jsonl")] == [3.0, 2.5, 1.5]


def test_numbers_that_are_not_finite_are_null_and_read_as_nan(tmp_path):
  write_rows(tmp_path, [(1, {"a": math.nan, "b": math.inf, "c": -math.inf, "d": 1.0})])

  def refuse(name):
    raise AssertionError(f"{name} is not valid JSON")

  # Python's json accepts NaN and Infinity, but other readers do not.
  row = json.loads((tmp_path / "metrics.jsonl").read_text(), parse_constant=refuse)
  assert row == {"step": 1, "a": None, "b": None, "c": None, "d": 1.0}
  (back,) = read_metrics(tmp_path)
  assert math.isnan(back["a"])
  assert back["d"] == 1.0


@pytest.mark.parametrize("torn", ['{"step": 2, "lo', '{"step": 2, "loss": 1.0}', "{"])
def test_an_incomplete_last_line_does_not_damage_the_next_row(tmp_path, torn):
  write_rows(tmp_path, [(1, {"loss": 3.0})])
  with (tmp_path / "metrics.jsonl").open("a") as file:
    file.write(torn)
  write_rows(tmp_path, [(2, {"loss": 2.0})])
  assert read_metrics(tmp_path) == [{"step": 1, "loss": 3.0}, {"step": 2, "loss": 2.0}]


def test_a_line_that_is_not_a_row_is_an_error_with_its_line_number(tmp_path):
  (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"loss": 1.0}\n')
  with pytest.raises(ValueError, match=r"metrics\.jsonl, line 2"):
    read_metrics(tmp_path)


@pytest.mark.parametrize(
  "line", ['{"loss": 1.0}', '[1, {"step": 1}', '{"step": "2"}', '{"step": 2, "loss": {}}']
)
def test_a_bad_line_does_not_end_a_run_and_is_reported_once(tmp_path, caplog, line):
  write_rows(tmp_path, [(1, {"loss": 3.0}), (2, {"val": 2.0})])
  good = (tmp_path / "metrics.jsonl").read_text()
  (tmp_path / "metrics.jsonl").write_text(f"{line}\n{good}")
  writer = MetricWriter(tmp_path)
  with caplog.at_level(logging.WARNING, logger="absl"):
    writer.write_curves()
    writer.write_curves()
  writer.close()
  (message,) = caplog.messages
  assert f"{tmp_path / 'metrics.jsonl'}, line 1: expected a JSON object" in message
  assert (tmp_path / "curves.png").exists()
  assert has_scores(tmp_path, 2)
  with pytest.raises(ValueError, match=r"metrics\.jsonl, line 1"):
    read_metrics(tmp_path)


def block(workdir):
  """Makes it impossible to write the four kinds of files, also for the user root."""
  workdir.mkdir()
  (workdir / "metrics.jsonl").mkdir()
  (workdir / "curves.png").mkdir()
  (workdir / "curves.png" / "file").write_text("")
  (workdir / "tensorboard").write_text("")
  (workdir / "panels").write_text("")


def test_files_that_cannot_be_written_are_reported_once_each(tmp_path, caplog):
  block(tmp_path / "run")
  with caplog.at_level(logging.WARNING, logger="absl"):
    writer = MetricWriter(tmp_path / "run")
    for step in (1, 2):
      writer.write_scalars(step, {"loss": 1.0})
      writer.write_images(step, {"panel": np.zeros((4, 4, 3), np.uint8)})
      writer.write_curves()
    writer.close()
  names = ("metrics.jsonl", "tensorboard", "panels", "curves.png")
  for name in names:
    (message,) = (
      message for message in caplog.messages if message.startswith(f"{tmp_path}/run/{name} cannot")
    )
    assert "The run goes on" in message
  assert len(caplog.messages) == len(names)
  assert not has_scores(tmp_path / "run", 1)


def test_rows_and_events_of_a_full_disk_are_written_when_it_has_space_again(tmp_path, caplog):
  writer = MetricWriter(tmp_path)
  writer.write_scalars(1, {"loss": 1.0})
  before = resource.getrlimit(resource.RLIMIT_FSIZE)
  try:
    resource.setrlimit(resource.RLIMIT_FSIZE, (60, before[1]))
    with caplog.at_level(logging.WARNING, logger="absl"):
      for step in range(2, 6):
        writer.write_scalars(step, {"loss": 1 / step})
      writer.write_images(5, {"panel": np.zeros((40, 40, 3), np.uint8)})
      writer.write_curves()
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
  assert len(caplog.messages) == 4
  assert all("File too large" in message for message in caplog.messages)
  assert list(tmp_path.glob("panels/.*")) == []  # no part of the picture remains
  writer.write_scalars(6, {"loss": 0.5})
  writer.close()
  assert [row["step"] for row in read_metrics(tmp_path)] == list(range(1, 7))
  events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
  assert [event.step for event in events.Scalars("loss")] == list(range(1, 7))


def test_rows_survive_a_kill(tmp_path):
  script = (
    "import os, signal, sys\n"
    "from hap_jax.train.report import MetricWriter\n"
    "writer = MetricWriter(sys.argv[1])\n"
    "for step in range(1, 8): writer.write_scalars(step, {'loss': 1 / step})\n"
    "os.kill(os.getpid(), signal.SIGKILL)\n"
  )
  done = subprocess.run([sys.executable, "-c", script, str(tmp_path)])
  assert done.returncode == -signal.SIGKILL
  assert [row["step"] for row in read_metrics(tmp_path)] == list(range(1, 8))


def test_neither_tensorflow_nor_torch_is_imported():
  script = (
    "import sys, hap_jax.train.report\n"
    "sys.exit(', '.join({'jax', 'tensorflow', 'torch', 'tensorboardX'} & set(sys.modules)) or 0)"
  )
  done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
  assert done.returncode == 0, done.stderr


def test_tensorboard_reads_scalars_and_images_back(tmp_path):
  writer = MetricWriter(tmp_path)
  writer.write_scalars(5, {"loss": 0.75, "nan": math.nan})
  writer.write_images(5, {"panel": np.zeros((4, 6, 3), np.uint8)})
  events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
  assert events.Tags()["scalars"] == ["loss", "nan"]
  assert [(event.step, event.value) for event in events.Scalars("loss")] == [(5, 0.75)]
  (image,) = events.Images("panel")
  assert (image.step, image.height, image.width) == (5, 4, 6)
  writer.close()


def test_the_png_file_of_a_panel_has_the_picture_in_rgb(tmp_path):
  picture = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
  writer = MetricWriter(tmp_path)
  writer.write_images(120, {"panel": picture})
  stored = cv2.imread(str(tmp_path / "panels" / "panel_00000120.png"))[..., ::-1]
  np.testing.assert_array_equal(stored, picture)
  writer.write_images(120, {"panel": 255 - picture})  # a resumed run draws the picture of a step again
  stored = cv2.imread(str(tmp_path / "panels" / "panel_00000120.png"))[..., ::-1]
  np.testing.assert_array_equal(stored, 255 - picture)
  assert [path.name for path in (tmp_path / "panels").iterdir()] == ["panel_00000120.png"]
  writer.close()


def test_a_batch_of_pictures_becomes_one_file_per_picture(tmp_path):
  writer = MetricWriter(tmp_path)
  writer.write_images(
    1, {"val/pose": np.zeros((2, 4, 4, 3), np.uint8), "one": np.zeros((1, 4, 4, 3), np.uint8)}
  )
  writer.close()
  names = sorted(str(path.relative_to(tmp_path / "panels")) for path in tmp_path.glob("panels/**/*.png"))
  assert names == ["one_00000001.png", "val/pose_0_00000001.png", "val/pose_1_00000001.png"]


def test_a_picture_of_wrong_type_or_shape_is_an_error_with_its_name(tmp_path):
  writer = MetricWriter(tmp_path)
  for picture in (
    np.zeros((4, 4, 3), np.float32),
    np.zeros((4, 4), np.uint8),
    np.zeros((0, 4, 4, 3), np.uint8),
  ):
    with pytest.raises(ValueError, match="'panel'"):
      writer.write_images(1, {"panel": picture})
  with pytest.raises(ValueError, match="step"):
    writer.write_scalars(1, {"step": 2.0})
  writer.close()


class Clock:
  """A clock in seconds. The test sets its time."""

  def __init__(self):
    self.now = 100.0

  def __call__(self):
    return self.now


def take_step(progress, clock, wait, work):
  """Simulates one step of the loop: it waits `wait` seconds for the batch and then works `work` seconds."""
  clock.now += wait
  progress.waited(wait)
  clock.now += work


def test_speed_and_eta_exclude_the_compile_time():
  clock = Clock()
  progress = Progress(total_steps=12, batch_size=8, start_step=2, clock=clock)
  # The first step takes a long time, because it compiles.
  take_step(progress, clock, wait=5.0, work=60.0)
  for _ in range(4):
    take_step(progress, clock, wait=0.5, work=1.5)
  line, row = progress.report(7, {"loss": 0.5, "lr": 1e-3})
  assert row == {"loss": 0.5, "lr": 1e-3, "images_per_s": 4.0, "data_wait": 0.25}
  assert line == "step  7/12  loss 0.5000  lr 1.00e-03  4.0 images/s  data wait 25%  ETA 10s"


def test_the_report_of_the_first_step_has_no_speed():
  clock = Clock()
  progress = Progress(total_steps=3, batch_size=8, clock=clock)
  take_step(progress, clock, wait=1.0, work=30.0)
  line, row = progress.report(1, {"loss": 2.0})
  assert line == "step 1/3  loss 2.0000  first step 31.0 s"
  assert math.isnan(row["images_per_s"])
  assert math.isnan(row["data_wait"])
  take_step(progress, clock, wait=0.0, work=2.0)
  _, row = progress.report(2, {"loss": 2.0})
  assert row["images_per_s"] == 4.0


def test_pauses_are_excluded_from_the_speed_but_included_in_the_eta():
  clock = Clock()
  progress = Progress(total_steps=5, batch_size=10, clock=clock)
  take_step(progress, clock, wait=0.0, work=9.0)
  take_step(progress, clock, wait=0.0, work=1.0)
  progress.report(2, {})
  with progress.paused():
    clock.now += 4.0
  take_step(progress, clock, wait=0.0, work=1.0)
  line, row = progress.report(3, {})
  assert row["images_per_s"] == 10.0
  assert line.endswith("ETA 6s")  # 6 s for two steps and a pause, two steps to go


def test_the_progress_line_shows_numbers_that_are_not_finite():
  clock = Clock()
  progress = Progress(total_steps=10, batch_size=1000, clock=clock)
  take_step(progress, clock, 0.0, 1.0)
  take_step(progress, clock, 0.0, 1.0)
  line, _ = progress.report(2, {"loss": math.nan, "tiny": 1.5e-7, "big": 3e8, "zero": 0.0})
  assert line == (
    "step  2/10  loss nan  tiny 1.50e-07  big 3.00e+08  zero 0.0000  1000 images/s  data wait 0%  ETA 8s"
  )


@pytest.mark.parametrize(
  ("seconds", "words"),
  [
    (0, "0s"),
    (59.4, "59s"),
    (59.6, "1m 00s"),
    (3599, "59m 59s"),
    (3720, "1h 02m"),
    (273600, "3d 04h"),
    (math.nan, "?"),
  ],
)
def test_durations_are_formatted_with_their_two_largest_units(seconds, words):
  assert format_seconds(seconds) == words
