"""Writes small videos."""

import re
import struct

import cv2
import numpy as np

SIZE = (48, 64)  # (H, W) in pixels


def picture(number, size=SIZE):
  """Returns frame `number`: red at the left, dark at the right, white above, and greener with each frame."""
  image = np.zeros((*size, 3), np.uint8)
  image[:, : size[1] // 2, 0] = 255
  image[: size[0] // 4] = 255
  image[..., 1] = 8 * number % 256
  return image


def write(path, num_frames, make=picture, size=SIZE):
  """Writes a video of the pictures make(0), make(1), ... at 10 frames per second."""
  code = cv2.VideoWriter_fourcc(*("MJPG" if path.suffix == ".avi" else "mp4v"))
  writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, code, 10, size[::-1])
  assert writer.isOpened()
  for number in range(num_frames):
    writer.write(cv2.cvtColor(make(number), cv2.COLOR_RGB2BGR))
  writer.release()
  return path


def turn(path):
  """Changes an .mp4 file as a phone does: it is to be shown turned by 90 degrees clockwise."""
  data = bytearray(path.read_bytes())
  matrix = data.index(b"tkhd") + 44  # in the header of the track
  data[matrix : matrix + 36] = struct.pack(">9i", 0, 2**16, 0, -(2**16), 0, 0, SIZE[0] * 2**16, 0, 2**30)
  path.write_bytes(data)


def state_frames(path, count):
  """Writes another number of frames into the headers of an .avi file."""
  data = bytearray(path.read_bytes())
  for place in (data.index(b"avih") + 24, data.index(b"strh") + 40):
    data[place : place + 4] = struct.pack("<I", count)
  path.write_bytes(data)


def damage_frame(path, number):
  """Overwrites the data of a frame of an .avi file with zeros."""
  data = bytearray(path.read_bytes())
  chunks = re.compile(b"00dc").finditer(bytes(data), data.index(b"movi"))
  starts = [match.end() + 4 for match in chunks]
  end = starts[number + 1] - 8
  data[starts[number] : end] = bytes(end - starts[number])
  path.write_bytes(data)
