"""Draws text, enlarges pictures and joins them.

No other file passes text to OpenCV, because OpenCV crashes on text that is not UTF-8.
"""

import re

import cv2
import numpy as np

PAPER = (255, 255, 255)
INK = (32, 33, 36)
FAINT = (112, 117, 122)
_FONT = cv2.FontFace("sans")  # part of OpenCV 5
_UNDRAWABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")  # control characters, surrogates


def blank(height, width):
  """Returns white paper, [height, width, 3] uint8."""
  return np.full((height, width, 3), PAPER, np.uint8)


def enlarge(image, scale):
  """Returns [H, W, 3] uint8 enlarged by a whole number `scale`, with bicubic interpolation."""
  image = np.ascontiguousarray(image)
  if scale == 1:
    return image.copy()
  height, width = image.shape[:2]
  return cv2.resize(image, (width * scale, height * scale), interpolation=cv2.INTER_CUBIC)


def drawable(text):
  """Returns a text as one line that can be drawn. U+FFFD replaces control characters and lone surrogates.

  Python puts lone surrogates into file names, in place of bytes that are not UTF-8.
  """
  return _UNDRAWABLE.sub("\ufffd", text)


def text_width(text, size, weight=400):
  """Returns the width of one line of text in pixels. `size` is in pixels, `weight` is 100 (thin) to 900."""
  left, _, width, _ = cv2.getTextSize((0, 0), drawable(text), (0, 0), _FONT, size, weight)
  return left + width


def fit_size(text, width, size, weight=400, least=6):
  """Returns the largest font size from `least` to `size` at which a text fits into `width` pixels.

  If the text is too wide even at `least`, the result is `least`.
  """
  text = text[:width]  # more characters do not fit, and measuring a very long text is slow
  while size > least and text_width(text, size, weight) > width:
    size -= 1
  return size


def shorten(text, width, size, weight=400):
  """Shortens a text to `width` pixels. Cuts out the middle, because the ends of a file name matter most."""
  if len(text) > width:  # the same limit as in `fit_size`
    text = f"{text[: width // 2]}…{text[-(width - width // 2) :]}"
  keep = len(text)
  while keep > 2 and text_width(text, size, weight) > width:
    keep -= 1
    text = f"{text[: keep // 2]}…{text[-(keep - keep // 2) :]}"
  return text


def write(picture, text, xy, size, weight=400, color=INK):
  """Writes one line into `picture` in place. `xy` is the left end of the base line in pixels."""
  cv2.putText(picture, drawable(text), tuple(int(z) for z in xy), color, _FONT, size, weight)


def write_centered(picture, text, x, y, size, weight=400, color=INK):
  """Writes one line into `picture` in place, centred on column x, with base line y."""
  write(picture, text, (x - text_width(text, size, weight) // 2, y), size, weight, color)


def wrap(text, width, size, weight=400):
  """Splits text at spaces into lines of at most `width` pixels. The middle of a longer word is cut out."""
  lines = [""]
  for word in text.split():
    longer = f"{lines[-1]} {word}".strip()
    if lines[-1] and text_width(longer, size, weight) > width:
      lines.append(word)
    else:
      lines[-1] = longer
  return [shorten(line, width, size, weight) for line in lines]


def paragraph(text, width, size, weight=400, color=INK):
  """Returns a strip of white paper [h, width, 3] with the text, split into lines."""
  lines = wrap(text, width, size, weight)
  pitch = round(1.45 * size)
  strip = blank(pitch * len(lines), width)
  for i, line in enumerate(lines):
    write(strip, line, (0, pitch * i + round(1.05 * size)), size, weight, color)
  return strip


def swatches(entries, width, size=18):
  """Returns a strip [h, width, 3] that explains colours, in several lines if necessary.

  Args:
    entries: (color, text) pairs.
    width: pixels.
    size: height of the text in pixels.
  """
  pitch, gap = round(1.7 * size), size // 2
  places, x, y = [], 0, 0
  for color, text in entries:
    text = shorten(text, width - size - gap, size)
    text_x = x + size + gap
    end = text_x + text_width(text, size)
    # An entry that does not fit moves to the next line, except the first entry of a line.
    if x and end > width:
      x, y, text_x, end = 0, y + pitch, size + gap, end - x
    places.append((color, text, x, y + (pitch - size) // 2, text_x))
    x = end + 3 * gap
  strip = blank(y + pitch, width)
  for color, text, x, top, text_x in places:
    strip[top : top + size, x : x + size] = color
    write(strip, text, (text_x, top + round(0.85 * size)), size)
  return strip


def stack(pictures, gap):
  """Stacks pictures of equal width from top to bottom, with white gaps of `gap` pixels."""
  space = blank(gap, pictures[0].shape[1])
  parts = [part for picture in pictures for part in (space, picture)]
  return np.concatenate(parts[1:], axis=0)


def frame(picture, margin):
  """Puts a white margin around a picture."""
  return cv2.copyMakeBorder(picture, *(4 * (margin,)), cv2.BORDER_CONSTANT, value=PAPER)
