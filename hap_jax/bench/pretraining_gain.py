"""Does pre-training help? Paired ReID runs on drawn people with and without it; one line of JSON and a curve.

    python -m hap_jax.bench.pretraining_gain --pretrained=runs/demo --out=runs/gain

Each seed draws people, batches and new layers of its own; both arms of a pair share them. An arm is
configs/finetune_reid_demo.py at its own learning rate, the best of those that were tried for both arms alike.
"""

import argparse
import json
import pathlib

import cv2
import numpy as np
import scipy.stats

from hap_jax import config as config_lib
from hap_jax import finetune
from hap_jax.train import report

_CONFIG = pathlib.Path(__file__).parents[2] / "configs" / "finetune_reid_demo.py"
_ARMS = ("pretrained", "scratch")
_COLORS = {"pretrained": "#b3472e", "scratch": "#3b6ea8"}


def parse_args(argv=None):
  """Reads the command line."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
  parser.add_argument("--pretrained", required=True, metavar="CHECKPOINT", help="of configs/pretrain_demo.py")
  parser.add_argument(
    "--out", required=True, metavar="DIR", help="folder of the runs; finished ones are kept"
  )
  parser.add_argument("--seeds", type=int, nargs="+", default=list(range(1, 11)), help="one pair each")
  parser.add_argument("--steps", type=int, default=600, help="of each run")
  parser.add_argument("--lr_pretrained", type=float, default=5e-4)
  parser.add_argument("--lr_scratch", type=float, default=2e-3)
  parser.add_argument("--figure", metavar="FILE.png", help="where to draw the curve")
  args = parser.parse_args(argv)
  if len(args.seeds) < 2:
    parser.error("--seeds: an interval takes at least two pairs")
  return args


def make_config(args, arm, seed):
  """Returns the finalized configuration of one run."""
  config = config_lib.read_file(_CONFIG)
  config.seed = seed
  config.total_steps = args.steps
  config.base_lr = getattr(args, f"lr_{arm}")
  config.init_from = args.pretrained if arm == "pretrained" else ""
  config.eval_every, config.eval_every_epochs, config.save_every = args.steps // 3, 0, 0
  return config_lib.finalize(config)


def train(args, arm, seed):
  """Trains one arm of a pair, unless it was; returns (steps, mAP) of its evaluations."""
  workdir, config = pathlib.Path(args.out) / f"{arm}_seed{seed}", make_config(args, arm, seed)
  config_lib.check_same(config, workdir)
  if not _is_finished(workdir, args.steps):
    finetune.run(config, workdir, say=lambda line: None)
  rows = [row for row in report.read_metrics(workdir) if "mAP" in row]
  return [row["step"] for row in rows], [row["mAP"] for row in rows]


def _is_finished(workdir, steps):
  path = workdir / report.METRICS_FILE
  return path.is_file() and any(row["step"] == steps and "mAP" in row for row in report.read_metrics(path))


def summarize(differences):
  """Returns (mean, (low, high)): Student's 95 % interval of the mean of paired differences."""
  mean, error = np.mean(differences), scipy.stats.sem(differences)
  low, high = scipy.stats.t.interval(0.95, len(differences) - 1, loc=mean, scale=error)
  return float(mean), (float(low), float(high))


def draw(steps, curves):
  """Draws each run and each arm's mean; curves: {arm: [seeds, evaluations]}. [h, w, 3] uint8."""
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure

  figure = Figure(figsize=(5.2, 3.2), dpi=110)
  axes = figure.add_axes((0.13, 0.15, 0.84, 0.8))
  names = {"pretrained": "from the demo's pre-trained encoder", "scratch": "from scratch"}
  for arm, values in curves.items():
    axes.plot(steps, values.T, color=_COLORS[arm], linewidth=0.7, alpha=0.4)
    axes.plot(steps, values.mean(0), color=_COLORS[arm], linewidth=2.2, marker="o", label=names[arm])
  axes.set_xlabel("fine-tuning step")
  axes.set_ylabel("mAP on people never seen")
  axes.set_ylim(bottom=0)
  axes.grid(color="#d9dcdf", linewidth=0.6)
  axes.legend(frameon=False, fontsize=9)
  canvas = FigureCanvasAgg(figure)
  canvas.draw()
  return np.asarray(canvas.buffer_rgba())[..., :3]


def main(argv=None):
  """Runs the pairs, prints the line and draws the curve."""
  args = parse_args(argv)
  found = {arm: [train(args, arm, seed) for seed in args.seeds] for arm in _ARMS}
  steps = found["scratch"][0][0]
  curves = {arm: np.array([scores for _, scores in runs]) for arm, runs in found.items()}
  mean, interval = summarize(curves["pretrained"][:, -1] - curves["scratch"][:, -1])
  if args.figure:
    cv2.imwrite(args.figure, np.ascontiguousarray(draw(steps, curves)[..., ::-1]))  # OpenCV writes BGR
  line = {
    "bench": "pretraining_gain",
    "seeds": args.seeds,
    "steps": args.steps,
    "lr": {arm: getattr(args, f"lr_{arm}") for arm in _ARMS},
    "mAP": {arm: [round(float(value), 4) for value in curves[arm][:, -1]] for arm in _ARMS},
    "mean": {arm: round(float(curves[arm][:, -1].mean()), 4) for arm in _ARMS},
    "difference": round(mean, 4),
    "interval_95": [round(limit, 4) for limit in interval],
  }
  print(json.dumps(line))


if __name__ == "__main__":
  main()
