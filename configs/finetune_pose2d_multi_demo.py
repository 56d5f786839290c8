"""Demo of 2D pose on three data sets of synthetic people. It takes minutes on two CPU cores.

The data sets show different people. Their joints are those of COCO, AIC and MPII. Joints of AIC and MPII that
drawn people do not have are missing. It learns faster with the encoder of the pre-training demo: set
config.init_from to the workdir of that demo.
"""

from configs import common, finetune_pose2d_demo

NUM_TRAIN = {"coco": 6_000, "aic": 4_000, "mpii": 2_000}  # pictures


def get_config():
  config = finetune_pose2d_demo.get_config()
  config.total_epochs = 7.0
  config.lr_drops = (5.5, 6.6)
  config.data.source = "mixed"
  config.data.num_val = 512  # people held out from each data set
  config.model.num_experts = 3
  skeletons = {"coco": "coco17", "aic": "aic14", "mpii": "mpii16"}
  parts = {
    label: {"source": "synthetic", "seed": seed, "skeleton": skeletons[label], "num_train": count}
    for seed, (label, count) in enumerate(NUM_TRAIN.items(), 1)
  }
  parts["aic"]["codec"] = "msra"
  common.mix(config, **parts)
  return config
