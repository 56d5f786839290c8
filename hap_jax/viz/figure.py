"""Makes charts with matplotlib, but without pyplot, because all callers would share the state of pyplot.

The import of matplotlib takes a second, so only the functions that draw a chart import it.
"""

import numpy as np

DPI = 110
BLUE, RED, GREEN = "#3b6ea8", "#b3472e", "#3c7d4f"
GREY, GRID, TEXT = "#9ea3a8", "#d9dcdf", "#404448"


def new(width, height, layout=None):
  """Returns an empty matplotlib Figure. The size is in inches, and `layout` is an argument of Figure."""
  from matplotlib.figure import Figure

  return Figure(figsize=(width, height), dpi=DPI, layout=layout)


def to_picture(figure):
  """Draws a Figure. Returns the picture, [h, w, 3] uint8."""
  from matplotlib.backends.backend_agg import FigureCanvasAgg

  canvas = FigureCanvasAgg(figure)
  canvas.draw()
  return np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., :3])
