"""SMPL's body layer and the camera of a crop against the official code and smplx, gradients included."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hap_jax.data import body_model
from hap_jax.models import crop_camera, smpl

_BODY_KEYS = {
  *("v_template", "shapedirs", "J_regressor", "posedirs", "weights", "f", "kintree_table", "parents"),
  *("joint_regressor_extra_row", "joint_regressor_30", "face_keypoint_vertices"),
}
_LAYER_KEYS = {
  *("case_names", "pose", "betas", "transl", "vertices", "joints", "joints_30"),
  *("vertices_smplx", "joints_smplx", "max_abs_difference_vertices", "max_abs_difference_joints"),
  *("grad/pose_in", "grad/betas_in", "grad/transl_in", "grad/weight_vertices", "grad/weight_joints"),
  *("grad/scalar", "grad/pose", "grad/betas", "grad/transl"),
  *(f"body/{key}" for key in _BODY_KEYS),
}
_CAMERA_KEYS = {
  *("camera", "camera_translation", "pose", "betas", "joint_proj", "joint_cam", "mesh_cam"),
  *("mesh_cam_absolute", "weight_joint_proj", "weight_joint_cam", "weight_mesh_cam", "scalar"),
  *("grad_camera", "grad_pose", "grad_betas", "k_value", "render/bbox", "render/camera_translation"),
  *("cfg/focal", "cfg/princpt", "cfg/input_img_shape", "cfg/output_hm_shape"),
}


@pytest.fixture(scope="module")
def layer(golden):
  arrays = golden("smpl_body")
  assert arrays.keys() == _LAYER_KEYS
  return arrays


@pytest.fixture(scope="module")
def camera(golden):
  arrays = golden("pose3d_camera")
  assert arrays.keys() == _CAMERA_KEYS
  return arrays


@pytest.fixture(scope="module")
def body(layer, tmp_path_factory):
  """Returns the body of the file, after it was written to a folder and read again."""
  arrays = {name: layer[f"body/{name}"] for name in ("v_template", "shapedirs", "posedirs", "J_regressor")}
  parents = layer["body/kintree_table"][0].astype(np.int64)
  parents = np.where(parents == 2**32 - 1, -1, parents).astype(np.int32)
  np.testing.assert_array_equal(parents, layer["body/parents"])
  one = body_model.Body(
    **arrays, weights=layer["body/weights"], parents=parents, faces=layer["body/f"].astype(np.int32)
  )
  V = one.num_vertices
  picked = np.eye(V, dtype=np.float32)[layer["body/face_keypoint_vertices"]]
  rows = [layer["body/J_regressor"], picked, layer["body/joint_regressor_extra_row"][None]]
  np.testing.assert_array_equal(np.concatenate(rows), layer["body/joint_regressor_30"])
  body_set = body_model.BodySet("golden", "none", {"neutral": one}, layer["body/joint_regressor_30"])
  folder = tmp_path_factory.mktemp("body") / "golden"
  body_model.write_body_set(folder, body_set)
  return smpl.load(folder)


def compare(found, expected, tolerance, what):
  error = np.abs(np.asarray(found, np.float64) - expected)
  place = np.unravel_index(error.argmax(), error.shape) if error.ndim else ()
  assert error.max() <= tolerance, f"{what}: error {error.max()} at {place}"


def compare_gradients(found, expected, tolerance, what):
  """The tolerance is relative to the largest entry of the array."""
  compare(found, expected, tolerance * np.abs(expected).max(), what)


def test_vertices_and_joints_agree_with_both_packages(layer, body):
  vertices, joints = jax.jit(smpl.pose_body)(body, layer["pose"], layer["betas"], layer["transl"])
  for found, key in ((vertices, "vertices"), (joints, "joints")):
    for i, name in enumerate(layer["case_names"]):
      compare(found[i], layer[key][i], 5e-6, f"{name}: {key}")
      compare(found[i], layer[f"{key}_smplx"][i], 5e-6, f"{name}: {key} of smplx")
    # The file states how far the two packages are apart.
    apart = np.abs(layer[key] - layer[f"{key}_smplx"]).max(axis=(1, 2))
    compare(apart, layer[f"max_abs_difference_{key}"], 1e-9, f"difference of {key}")
  regressed = smpl.regress_joints(body, vertices)
  compare(regressed, layer["joints_30"], 5e-6, "joints_30")


def test_gradients_of_the_layer_agree(layer, body):
  @jax.jit
  def total(pose, betas, translation, body):
    vertices, joints = smpl.pose_body(body, pose, betas, translation)
    return (layer["grad/weight_vertices"] * vertices).sum() + (layer["grad/weight_joints"] * joints).sum()

  inputs = [jnp.asarray(layer[f"grad/{name}_in"]) for name in ("pose", "betas", "transl")]
  scalar, grads = jax.value_and_grad(total, argnums=(0, 1, 2))(*inputs, body)
  np.testing.assert_allclose(scalar, layer["grad/scalar"], atol=1e-4)
  for found, name in zip(grads, ("pose", "betas", "transl"), strict=True):
    compare_gradients(found, layer[f"grad/{name}"], 1e-4, name)


def place(body, camera, pose, betas, file):
  """Returns the outputs of the official head: 2D joints in heat-map cells, 3D joints and meshes."""
  translation = crop_camera.camera_translation(camera)
  mesh, _ = smpl.pose_body(body, pose, betas, translation)
  joints = smpl.regress_joints(body, mesh)
  cells = file["cfg/output_hm_shape"][::-1][:2] / file["cfg/input_img_shape"][::-1]  # (x, y)
  projected = crop_camera.project(joints) * cells.astype(np.float32)
  return {
    "camera_translation": translation,
    "joint_proj": projected,
    "joint_cam": joints - joints[:, :1],
    "mesh_cam": mesh - joints[:, :1],
    "mesh_cam_absolute": mesh,
  }


_TOLERANCES = {"joint_proj": 1e-3}  # heat-map cells; all else is in metres


def test_camera_and_projection_agree(camera, body):
  assert crop_camera.FOCAL == camera["cfg/focal"][0] == camera["cfg/focal"][1]
  assert crop_camera.SIDE == camera["cfg/input_img_shape"][0] == camera["cfg/input_img_shape"][1]
  assert (camera["cfg/princpt"] == crop_camera.SIDE / 2).all()
  farthest = crop_camera.camera_translation(jnp.array([0.0, 0.0, 40.0]))[2]
  np.testing.assert_allclose(farthest, camera["k_value"], rtol=1e-6)
  found = jax.jit(place)(body, camera["camera"], camera["pose"], camera["betas"], camera)
  for name, array in found.items():
    compare(array, camera[name], _TOLERANCES.get(name, 5e-5), name)


def test_gradients_through_camera_and_projection_agree(camera, body):
  def total(inputs, body):
    found = place(body, *inputs, camera)
    names = ("joint_proj", "joint_cam", "mesh_cam")
    return sum((camera[f"weight_{name}"] * found[name]).sum() for name in names)

  inputs = tuple(jnp.asarray(camera[name]) for name in ("camera", "pose", "betas"))
  scalar, grads = jax.jit(jax.value_and_grad(total))(inputs, body)
  np.testing.assert_allclose(scalar, camera["scalar"], rtol=1e-4)
  for found, name in zip(grads, ("camera", "pose", "betas"), strict=True):
    compare_gradients(found, camera[f"grad_{name}"], 1e-3, name)


def test_the_camera_of_the_whole_picture_agrees(camera):
  side = np.sqrt(camera["render/bbox"][:, 2] * camera["render/bbox"][:, 3])
  found = crop_camera.camera_translation(jnp.asarray(camera["camera"]), side=side)
  np.testing.assert_allclose(found, camera["render/camera_translation"], rtol=2e-6, atol=5e-5)
