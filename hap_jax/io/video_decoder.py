"""The child process of `video_file`: decodes a video with OpenCV and FFmpeg, and writes its frames to stdout.

It imports nothing of this project. A damaged or hostile video can only end this process. The process has a
limit of memory, and FFmpeg opens only local files of the containers below. Containers that name other files,
such as play lists, are not among them.
"""

import json
import os
import resource
import struct
import sys

MAX_PIXELS = 2**26  # of a frame; 8K has 2**25
_CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,mpegvideo,flv,asf,ogg,h264,hevc,m4v,ivf"
OPTIONS = f"protocol_whitelist;file|format_whitelist;{_CONTAINERS}"
# One record on stdout: kind, number of the frame, height, width. A frame is followed by its pixels.
RECORD = struct.Struct("<4q")
OPENED, FRAME, UNREADABLE, END = range(4)
_MOST_FAILURES = 64  # after as many frames in a row that cannot be decoded, the video has ended


def main(job):
  """Decodes a video.

  Args:
    job: {"path": absolute path of the video, "every": N for every N-th frame, "part_frames": number of frames
      per part, "skip": numbers of the parts that are not needed, "shard": [K, N]: parts whose number divided
      by N leaves another rest than K are not needed, "memory_bytes": limit of the address space}.
  """
  resource.setrlimit(resource.RLIMIT_AS, (job["memory_bytes"], job["memory_bytes"]))
  resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
  os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] = OPTIONS
  os.environ["OPENCV_FFMPEG_LOGLEVEL"] = "-8"  # quiet
  os.environ["OPENCV_LOG_LEVEL"] = "OFF"
  import cv2

  out = os.fdopen(os.dup(1), "wb")
  os.dup2(2, 1)  # if a library prints, it must not print between the frames
  video = cv2.VideoCapture(job["path"], cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
  if not video.isOpened():
    raise ValueError("FFmpeg finds no video in it")
  width, height = video.get(cv2.CAP_PROP_FRAME_WIDTH), video.get(cv2.CAP_PROP_FRAME_HEIGHT)
  if not 0 < width * height <= MAX_PIXELS:
    raise ValueError(f"its frames have {width:.0f} x {height:.0f} pixels, expected at most {MAX_PIXELS:,}")
  count = video.get(cv2.CAP_PROP_FRAME_COUNT)
  _write(out, OPENED, int(count) if 0 < count < 2**40 else 0)
  number = 0
  for is_decoded in _grab(video):
    if _is_needed(number, job):
      is_read, frame = video.retrieve() if is_decoded else (False, None)
      if is_read and frame.size and frame.shape[0] * frame.shape[1] <= MAX_PIXELS:
        _write(out, FRAME, number, *frame.shape[:2])
        out.write(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB).data)
      else:
        _write(out, UNREADABLE, number)
    number += 1
  _write(out, END, number)
  out.flush()


def _grab(video):
  """Decodes frame after frame. Yields for each frame whether it could be decoded.

  `video.grab` fails at the end, and also at a damaged frame. Only after a damaged frame, it succeeds again.
  """
  failures = 0
  while failures < _MOST_FAILURES:
    if video.grab():
      yield from [False] * failures
      failures = 0
      yield True
    else:
      failures += 1


def _is_needed(number, job):
  """Returns True if the frame of this number is one of the frames of the job."""
  part, (rest, shards) = number // job["part_frames"], job["shard"]
  return number % job["every"] == 0 and part % shards == rest and part not in job["skip"]


def _write(out, kind, number, height=0, width=0):
  out.write(RECORD.pack(kind, number, height, width))


if __name__ == "__main__":
  try:
    main(json.loads(sys.argv[1]))
  except Exception as error:  # the parent process prints this line
    sys.exit(" ".join(str(error).split()) or type(error).__name__)
