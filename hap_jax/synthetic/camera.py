"""Simulates cameras: position, direction, projection of points, and blur, noise and colours of the sensor."""

import dataclasses
import functools
import math

import cv2
import numpy as np

CAMERAS_PER_SITE = 6
MAX_SIZE = (640, 512)  # (H, W) of the largest picture


@dataclasses.dataclass(frozen=True)
class Sensor:
  """The properties of one camera that change the pixels of all its pictures.

  Attributes:
    gain: [3] factor of each channel, for exposure and colour cast.
    offset: grey levels that are added to every pixel, as haze does.
    gamma: exponent of the tone curve.
    blur: standard deviation of the blur, divided by the picture's width.
    noise: standard deviation of the noise in grey levels.
    jpeg_quality: 0 to 100.
  """

  gain: np.ndarray
  offset: float
  gamma: float
  blur: float
  noise: float
  jpeg_quality: int


@dataclasses.dataclass(frozen=True)
class Station:
  """A fixed camera: height, smallest and largest distance of people (all in metres), and sensor."""

  height: float
  near: float
  far: float
  sensor: Sensor


@dataclasses.dataclass(frozen=True)
class Camera:
  """A pinhole camera.

  In the world, y points up. In the camera frame, x points right, y down and z forward. Both are in metres.
  Pixel centres are at whole numbers.

  Attributes:
    rotation: [3, 3] from the world to the camera.
    translation: [3] metres, from the world to the camera.
    intrinsics: [3, 3] pixels.
  """

  rotation: np.ndarray
  translation: np.ndarray
  intrinsics: np.ndarray

  def to_camera(self, points):
    """Moves world points [..., 3] to the camera frame."""
    return points @ self.rotation.T + self.translation


def project(points, intrinsics):
  """Projects camera-frame points [..., 3] metres to pixels [..., 2] (x, y)."""
  pixels = np.empty((*points.shape[:-1], 2))
  for k in (0, 1):  # column by column, because numpy is slow on a short last axis
    np.divide(points[..., k], points[..., 2], out=pixels[..., k])
    pixels[..., k] *= intrinsics[k, k]
    pixels[..., k] += intrinsics[k, 2]
  return pixels


def sample_station(rng):
  """Returns a Station (a camera that does not move) with random properties."""
  gain = rng.normal(1.0, 0.05, 3) * rng.uniform(0.82, 1.12)
  sensor = Sensor(
    gain=gain,
    offset=float(rng.uniform(-4, 14)),
    gamma=float(rng.uniform(0.85, 1.15)),
    blur=float(rng.uniform(0.002, 0.007)),
    noise=float(rng.uniform(0.8, 3.0)),
    jpeg_quality=int(rng.integers(55, 95)),
  )
  near = rng.uniform(4.0, 7.0)
  return Station(
    height=float(rng.uniform(1.4, 4.2)),
    near=float(near),
    far=float(near * rng.uniform(1.5, 2.5)),
    sensor=sensor,
  )


def aim(station, rng):
  """Points a camera at a person who stands at the origin of the world.

  Args:
    station: Station.
    rng: numpy Generator. It chooses the distance and a small error of the direction.
  Returns:
    (rotation [3, 3], translation [3]) from the world to the camera.
  """
  distance = rng.uniform(station.near, station.far)
  # The camera points at about the middle of the body, 0.9 m above the ground.
  pitch = math.atan2(station.height - 0.9, distance) + math.radians(rng.normal(0, 3))
  pan = math.radians(rng.uniform(-14, 14))
  tilt = np.array([[1, 0, 0], [0, math.cos(pitch), -math.sin(pitch)], [0, math.sin(pitch), math.cos(pitch)]])
  turn = np.array([[math.cos(pan), 0, math.sin(pan)], [0, 1, 0], [-math.sin(pan), 0, math.cos(pan)]])
  rotation = tilt @ turn @ _FLIP
  return rotation, -rotation @ np.array((0.0, station.height, distance))


_FLIP = np.diag((1.0, -1.0, -1.0))  # the world's y is up and its z points at the camera


def expose(image, sensor, rng):
  """Applies the properties of a sensor to a picture: blur, noise, colours and JPEG compression.

  Args:
    image: [H, W, 3] float32 in grey levels.
    sensor: Sensor.
    rng: numpy Generator.
  Returns:
    [H, W, 3] uint8.
  """
  gain = sensor.gain * rng.normal(1.0, 0.05)
  # The blur is at least 0.4 pixels, because no lens is perfectly sharp and drawn edges are almost steps.
  sigma = max(sensor.blur * image.shape[1] * rng.uniform(0.8, 1.3), 0.4)
  image = cv2.GaussianBlur(image, (0, 0), sigma)
  top, left = rng.integers(_NOISE_MARGIN), rng.integers(_NOISE_MARGIN)
  noise = _NOISE[top : top + image.shape[0], left : left + image.shape[1]]
  image = cv2.scaleAdd(noise, sensor.noise, cv2.multiply(image, (*gain, 0.0), image), image)
  image = cv2.LUT(cv2.add(image, (sensor.offset,) * 4, dtype=cv2.CV_8U), _tone_curve(sensor.gamma))
  # OpenCV's JPEG functions expect BGR, but the picture is RGB. The only effect is that JPEG's two colour
  # channels are swapped. Both are compressed in the same way.
  _, data = cv2.imencode(".jpg", image, (cv2.IMWRITE_JPEG_QUALITY, sensor.jpeg_quality))
  return cv2.imdecode(data, cv2.IMREAD_COLOR)


@functools.lru_cache(maxsize=64)
def _tone_curve(gamma):
  """Returns the output of a sensor for each input grey level, [256] uint8."""
  return np.rint(255 * (np.arange(256) / 255) ** gamma).astype(np.uint8)


# One fixed array of noise. Each picture uses a random section of it. New random numbers for every picture
# would take longer than all other steps of the sensor.
_NOISE_MARGIN = 128
_NOISE = np.random.default_rng(20310).standard_normal(
  (MAX_SIZE[0] + _NOISE_MARGIN, MAX_SIZE[1] + _NOISE_MARGIN, 3), dtype=np.float32
)
