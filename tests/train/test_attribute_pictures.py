"""The pictures of an attribute evaluation."""

import numpy as np

from hap_jax.data.sources import synthetic
from hap_jax.tasks import attributes
from hap_jax.viz import attributes as viz


def test_pictures_show_the_records_of_the_rows_and_their_mistakes():
  source = synthetic.open_source(split="test", num_test=16, image_size=(40, 20))
  index = np.array([9, 3, 12])
  right = np.where(source.columns["attributes"][index], 0.9, 0.1)
  draw = attributes.make_row_figures(source)
  assert draw({"test": {"probability": right, "index": index}}).keys() == {"attributes"}
  # The pictures of a perfect prediction have no sheet of mistakes. One flipped probability adds it.
  wrong = right.copy()
  wrong[1, 4] = 1 - wrong[1, 4]
  pictures = draw({"test": {"probability": wrong, "index": index}})
  assert pictures.keys() == {"attributes", "mistakes"}
  there = source.columns["attributes"][3, 4]
  text = [source.spec.labels["attributes"][4], f"p {wrong[1, 4]:.2f}, is {'there' if there else 'not there'}"]
  title = "The most certain mistakes on test"
  want = viz.labelled_sheet([source[3]["image"]], [text], title=title)  # row 1 is picture 3
  np.testing.assert_array_equal(pictures["mistakes"], want)
