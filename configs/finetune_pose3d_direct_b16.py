"""3D pose and shape with ViT-B/16, trained on drawn people and scored on 3DPW.

The scores need 3DPW (config.data.eval_root) and SMPL (config.data.eval_body, see `hap body`). To score
held-out drawn people instead, set config.data.eval_source="" and config.data.num_val=1000.
"""

from configs import common


def get_config():
  config = common.pose3d("synthetic")
  config.data.eval_source = "pw3d"
  config.data.num_val = 0
  config.data.synthetic.num_train = 100_000
  return config
