"""Position tables and their resize against the official implementation."""

import numpy as np
import pytest

from hap_jax.models.posemb import resize_table, sincos_table


def grid_of(text):
  return tuple(int(side) for side in text.split("x"))


def test_sincos_tables_agree_with_the_official_tables(golden):
  file = golden("pos_embed")
  names = [key.removesuffix("/values") for key in file if key.endswith("/values")]
  assert names
  for name in names:
    grid, width = name.removeprefix("sincos/").split("_d")
    table = sincos_table(grid_of(grid), int(width))[0]
    # The file stores a sample of the columns, to stay small.
    np.testing.assert_allclose(
      table[:, file[f"{name}/dims"]], file[f"{name}/values"], atol=5e-6, rtol=0, err_msg=name
    )


def test_resized_tables_agree_with_the_official_resize(golden):
  file = golden("pos_embed")
  names = [key.removesuffix("/input") for key in file if key.endswith("/input")]
  assert names
  for name in names:
    old, new = name.removeprefix("interp/").split("_to_")
    table = resize_table(file[f"{name}/input"], grid_of(old), grid_of(new))
    np.testing.assert_allclose(table, file[f"{name}/output"], atol=1e-5, rtol=0, err_msg=name)


def test_a_constant_table_stays_constant_and_an_unknown_interpolation_is_an_error():
  table = np.full((1, 1 + 12, 2), 3, np.float32)
  for interpolation in ("bicubic", "bilinear"):
    found = resize_table(table, (4, 3), (7, 2), interpolation)
    np.testing.assert_allclose(found, np.full((1, 1 + 14, 2), 3), atol=1e-6)
  with pytest.raises(ValueError, match="interpolation 'nearest' is not one of bicubic, bilinear"):
    resize_table(table, (4, 3), (7, 2), "nearest")
