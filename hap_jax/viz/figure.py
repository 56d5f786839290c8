"""Makes charts with matplotlib, without pyplot, because all callers would share the state of pyplot.

Importing matplotlib takes a second, so it is imported inside the functions that draw a chart.
"""

import numpy as np

DPI = 110
BLUE, RED, GREEN = "#3b6ea8", "#b3472e", "#3c7d4f"
GREY, GRID, TEXT = "#9ea3a8", "#d9dcdf", "#404448"


def new(width, height, layout=None):
  """Returns an empty matplotlib Figure. The size is in inches. `layout` is passed to Figure."""
  from matplotlib.figure import Figure

  return Figure(figsize=(width, height), dpi=DPI, layout=layout)


def to_picture(figure):
  """Draws a Figure. Returns the picture, [h, w, 3] uint8."""
  from matplotlib.backends.backend_agg import FigureCanvasAgg

  canvas = FigureCanvasAgg(figure)
  canvas.draw()
  return np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., :3])
