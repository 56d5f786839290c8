"""Charts by matplotlib: figures without pyplot, so without state that processes or callers share.

matplotlib takes a second to import; only a chart that is drawn imports it.
"""

import numpy as np

DPI = 110
BLUE, RED, GREEN = "#3b6ea8", "#b3472e", "#3c7d4f"
GREY, GRID, TEXT = "#9ea3a8", "#d9dcdf", "#404448"


def new(width, height, layout=None):
  """Returns an empty matplotlib Figure of this size in inches; `layout` is matplotlib's."""
  from matplotlib.figure import Figure

  return Figure(figsize=(width, height), dpi=DPI, layout=layout)


def to_picture(figure):
  """Draws a Figure; [h, w, 3] uint8."""
  from matplotlib.backends.backend_agg import FigureCanvasAgg

  canvas = FigureCanvasAgg(figure)
  canvas.draw()
  return np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., :3])
