"""Textures: one small picture for each kind of surface of a person, stacked into an atlas."""

import cv2
import numpy as np

from hap_jax.data.synthetic.figure import TILE_INDEX, TILES

TILE_SIZE = 64
_FRONT, _BACK = TILE_SIZE // 4, 3 * TILE_SIZE // 4
_ROWS, _COLUMNS = np.mgrid[:TILE_SIZE, :TILE_SIZE]
# A fixed sheet of soft wrinkles, cut at a random place for each garment.
_FOLDS = cv2.resize(
  np.random.default_rng(41).standard_normal((40, 24), dtype=np.float32), (256, 256), interpolation=cv2.INTER_CUBIC
)


def paint_atlas(look, rng):
  """Paints all textures of a person.

  Args:
    look: Appearance. rng: numpy Generator, for what does not belong to the identity (wrinkles).
  Returns:
    [T, S, S, 3] float32 grey levels: row is v (0 is the lower end), column is u.
  """
  tones = look.tones
  atlas = np.empty((len(TILES), TILE_SIZE, TILE_SIZE, 3), np.float32)
  flat = {"skin": "skin", "hair": "hair", "hat": "hat", "bottom": "bottom", "shoe": "shoes", "bag": "bag", "inner": "inner"}
  for tile, tone in flat.items():
    atlas[TILE_INDEX[tile]] = tones[tone]
  atlas[TILE_INDEX["glasses"]] = 20
  atlas[TILE_INDEX["head"]] = _paint_head(look)
  atlas[TILE_INDEX["top"]], atlas[TILE_INDEX["sleeve"]] = _paint_top(look)
  for tile in ("top", "sleeve", "bottom", "hair", "bag"):
    row, column = rng.integers(0, 256 - TILE_SIZE, 2)
    folds = _FOLDS[row : row + TILE_SIZE, column : column + TILE_SIZE]
    atlas[TILE_INDEX[tile]] *= 1 + 0.07 * folds[..., None]
  atlas[TILE_INDEX["shoe"], :8] *= 0.6
  return atlas


def _paint_top(look):
  top, second = look.tones["top"].astype(np.float32), look.tones["second"].astype(np.float32)
  body = np.empty((TILE_SIZE, TILE_SIZE, 3), np.float32)
  body[:] = top
  sleeve = body.copy()
  if look.pattern == "stripes":
    body[(_ROWS // 4) % 2 == 0] = second
    sleeve[(_ROWS // 4) % 2 == 0] = second
  elif look.pattern == "bars":
    body[(_COLUMNS // 4) % 2 == 0] = second
  elif look.pattern == "plaid":
    for picture in (body, sleeve):
      picture[(_ROWS % 10) < 3] = 0.5 * top + 0.5 * second
      picture[(_COLUMNS % 10) < 3] = 0.5 * top + 0.5 * second
      picture[((_COLUMNS % 10) < 3) & ((_ROWS % 10) < 3)] = second
  elif look.pattern == "splice":
    body[_ROWS > 38] = second
    sleeve[_ROWS < 22] = second
  elif look.pattern == "logo":
    body[34:46, _FRONT - 5 : _FRONT + 6] = second
  if look.top in ("jacket", "coat"):
    body[:, _FRONT - 2 : _FRONT + 3] = look.tones["inner"]
    body[:, _FRONT - 4 : _FRONT - 2] *= 0.75
    body[:, _FRONT + 3 : _FRONT + 5] *= 0.75
  body[-3:] *= 0.85
  return body, sleeve


def _paint_head(look):
  """Face and hair on the head's own surface: u is the direction (front at a quarter), v runs chin to crown."""
  skin, hair = look.tones["skin"].astype(np.float32), look.tones["hair"].astype(np.float32)
  picture = np.empty((TILE_SIZE, TILE_SIZE, 3), np.float32)
  picture[:] = skin
  if look.hair != "bald":
    from_front = np.abs((_COLUMNS - _FRONT + 32) % 64 - 32) / 32
    hairline = np.interp(from_front, (0.0, 0.3, 0.42, 0.52, 0.6, 1.0), (0.84, 0.80, 0.62, 0.55, 0.26, 0.14))
    picture[_ROWS / TILE_SIZE > hairline] = hair
  if look.has_beard:
    picture[5:18, _FRONT - 9 : _FRONT + 10] = 0.35 * skin + 0.65 * hair
  ink = tuple(float(value) for value in skin * 0.3)
  lips = tuple(float(value) for value in skin * (0.72, 0.52, 0.52))
  cv2.ellipse(picture, (_FRONT, 14), (4, 1), 0, 0, 360, lips, -1)
  brow = tuple(float(value) for value in 0.6 * hair + 0.2 * skin)
  for mirror in (-1, 1):
    x = _FRONT + mirror * 5
    cv2.ellipse(picture, (x, 36), (2, 1), 0, 0, 360, (215.0, 210.0, 205.0), -1)
    cv2.circle(picture, (x, 36), 1, ink, -1)
    cv2.line(picture, (x - 2, 41), (x + 2, 41), brow, 1)
  if look.has_glasses:
    for mirror in (-1, 1):
      cv2.rectangle(picture, (_FRONT + mirror * 5 - 3, 33), (_FRONT + mirror * 5 + 3, 39), (25.0, 25.0, 28.0), 1)
    cv2.line(picture, (_FRONT - 16, 37), (_FRONT - 8, 37), (25.0, 25.0, 28.0), 1)
    cv2.line(picture, (_FRONT + 8, 37), (min(_FRONT + 16, 63), 37), (25.0, 25.0, 28.0), 1)
  return picture
