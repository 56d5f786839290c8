"""Frames of a video come from a child process, in order, turned, and with errors of one line."""

import os
import signal

import numpy as np
import pytest

from hap_jax.io import video_file
from tests.io import video_files

NUM = 12


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
  return video_files.write(tmp_path_factory.mktemp("video") / "clip.mp4", NUM)


def read(path, **options):
  with video_file.Video(path, **options) as video:
    return list(video), video


def test_every_frame_is_read_in_order(clip):
  frames, video = read(clip)
  assert [frame.number for frame in frames] == list(range(NUM))
  assert video.num_frames == video.stated_frames == NUM
  for frame in frames:
    error = np.abs(frame.image.astype(int) - video_files.picture(frame.number))
    assert error.mean() < 6  # the codec loses a little


def test_some_frames_are_chosen_by_their_number_and_part(clip):
  numbers = lambda **options: [frame.number for frame in read(clip, **options)[0]]  # noqa: E731
  assert numbers(every=5) == [0, 5, 10]
  assert numbers(every=2, part_frames=4, skip=[1]) == [0, 2, 8, 10]
  assert numbers(part_frames=4, shard=(1, 2)) == [4, 5, 6, 7]
  assert numbers(part_frames=4, skip=[0, 1, 2]) == []


def test_a_video_of_a_phone_is_turned(clip, tmp_path):
  path = tmp_path / "turned.mp4"
  path.write_bytes(clip.read_bytes())
  video_files.turn(path)
  upright, turned = read(clip)[0], read(path)[0]
  for one, other in zip(upright, turned, strict=True):
    np.testing.assert_array_equal(np.rot90(one.image, -1), other.image)


@pytest.mark.parametrize("stated", [1, 10**9])
def test_the_number_of_frames_in_the_file_is_not_trusted(tmp_path, stated):
  path = video_files.write(tmp_path / "clip.avi", NUM)
  video_files.state_frames(path, stated)
  frames, video = read(path)
  assert len(frames) == video.num_frames == NUM
  assert video.stated_frames == stated


def test_damaged_frames_are_listed_and_the_others_are_read(tmp_path):
  path = video_files.write(tmp_path / "clip.avi", NUM)
  for number in (4, 5, 9):
    video_files.damage_frame(path, number)
  frames, video = read(path)
  assert [frame.number for frame in frames] == list(range(NUM))
  assert [frame.number for frame in frames if frame.image is None] == [4, 5, 9]
  assert video.num_frames == NUM
  for frame in frames:
    if frame.image is not None:
      assert np.abs(frame.image.astype(int) - video_files.picture(frame.number)).mean() < 6
  assert [frame.number for frame in read(path, every=5)[0] if frame.image is None] == [5]


def test_a_file_that_is_no_video_is_one_line(tmp_path):
  path = tmp_path / "x.mp4"
  clip = video_files.write(tmp_path / "clip.mp4", 2)
  for content in (
    b"",
    b"no video",
    clip.read_bytes()[:500],
    f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{clip}\n#EXT-X-ENDLIST\n".encode(),  # a play list
    f"ffconcat version 1.0\nfile {clip}\n".encode(),
  ):
    path.write_bytes(content)
    with pytest.raises(
      ValueError, match=f"^{path}: not a video that can be read: FFmpeg finds no video in it$"
    ):
      read(path)
  with pytest.raises(ValueError, match="found a folder"):
    read(tmp_path)
  with pytest.raises(FileNotFoundError):
    read(tmp_path / "absent.mp4")


def test_a_lack_of_memory_or_a_crash_of_the_decoder_is_one_line(clip):
  with pytest.raises(ValueError, match=f"^{clip}: not a video that can be read: .*emory"):
    read(clip, memory_bytes=2**26)
  with video_file.Video(clip) as video:
    assert next(video).number == 0
    os.kill(video._process.pid, signal.SIGKILL)
    with pytest.raises(ValueError, match=r"can be read after frame \d+: its decoder ended with SIGKILL"):
      list(video)


def test_an_early_end_stops_the_child_process(clip):
  with video_file.Video(clip) as video:
    next(video)
  assert video._process.returncode is not None
