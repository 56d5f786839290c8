"""The training transform of attributes equals its four steps in Pillow and NumPy, for fixed draws."""

import numpy as np
from PIL import Image

from hap_jax.data.transforms.attributes import ResizeBilinear
from hap_jax.data.transforms.image import HorizontalFlip
from hap_jax.data.transforms.reid import PadCrop


def test_a_file_is_resized_padded_cropped_and_mirrored_as_in_the_official_code(tmp_path):
  path = tmp_path / "odd.png"
  image = np.random.default_rng(0).integers(0, 256, (131, 57, 3), dtype=np.uint8)
  Image.fromarray(image).save(path)
  with Image.open(path) as file:
    resized = np.asarray(file.convert("RGB").resize((192, 256), Image.BILINEAR))
  padded = np.pad(resized, ((10, 10), (10, 10), (0, 0)))
  expected = padded[3:259, 17:209][:, ::-1]
  attributes = np.array([True, False])
  record = {"image": image, "attributes": attributes}
  result = ResizeBilinear(size=(256, 192))(record, None)
  result = PadCrop(pad=10).crop(result, 3, 17)
  result = HorizontalFlip(prob=1.0)(result, np.random.default_rng(0))
  np.testing.assert_array_equal(result["image"], expected)
  np.testing.assert_array_equal(result["attributes"], attributes)
