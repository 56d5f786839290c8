"""Tables of rings that describe the surface of an adult body of 1.70 m. All lengths are in metres.

The rings of the trunk and the head are horizontal slices. The rings of a limb are slices across the limb.
Width is measured from left to right, depth from front to back.
"""

import numpy as np

PARTS = (
  *("background", "head", "torso", "left_upper_arm", "right_upper_arm", "left_lower_arm", "right_lower_arm"),
  *("left_hand", "right_hand", "left_upper_leg", "right_upper_leg", "left_lower_leg", "right_lower_leg"),
  *("left_foot", "right_foot", "carried", "other_person", "object"),
)
PART_INDEX = {name: i for i, name in enumerate(PARTS)}

# fmt: off
# Trunk. Columns: height above the pelvis in the rest pose, joint that moves the ring, height above this
# joint, half-width, half-depth, shift to the front, weights of the person's width factors (hip, waist,
# shoulder).
_TRUNK = (
  (-0.165, "pelvis", -0.165, 0.050, 0.060, -0.012, (1, 0, 0)),
  (-0.145, "pelvis", -0.145, 0.115, 0.098, -0.016, (1, 0, 0)),
  (-0.100, "pelvis", -0.100, 0.160, 0.114, -0.018, (1, 0, 0)),
  (-0.050, "pelvis", -0.050, 0.165, 0.118, -0.016, (1, 0, 0)),
  (0.030, "pelvis", 0.030, 0.154, 0.110, -0.006, (0.4, 0.6, 0)),
  (0.100, "spine1", 0.010, 0.144, 0.104, 0.004, (0, 1, 0)),
  (0.170, "spine1", 0.080, 0.146, 0.104, 0.008, (0, 1, 0)),
  (0.240, "spine2", 0.020, 0.154, 0.110, 0.006, (0, 0.5, 0.5)),
  (0.300, "spine3", 0.015, 0.166, 0.116, 0.002, (0, 0, 1)),
  (0.350, "spine3", 0.065, 0.172, 0.111, -0.004, (0, 0, 1)),
  (0.390, "spine3", 0.105, 0.176, 0.090, -0.010, (0, 0, 1)),
  (0.422, "spine3", 0.137, 0.162, 0.070, -0.016, (0, 0, 1)),
  (0.445, "spine3", 0.160, 0.115, 0.060, -0.018, (0, 0, 0.5)),
  (0.467, "spine3", 0.182, 0.066, 0.057, -0.014, (0, 0, 0)),
)
TRUNK_HEIGHT = np.array([row[0] for row in _TRUNK])
TRUNK_JOINT = [row[1] for row in _TRUNK]
TRUNK_RING = np.array([row[2:6] for row in _TRUNK])
TRUNK_ZONE = np.array([row[6] for row in _TRUNK], float)

# Limbs. Columns: position along the limb, radius. Position 0 is the shoulder or hip, 1 the elbow or knee, 2
# the wrist or ankle. The rows of an arm at negative positions form the dome of the shoulder.
ARM = np.array((
  (-0.15, 0.014), (-0.12, 0.034), (-0.04, 0.047), (0.08, 0.051), (0.3, 0.049), (0.7, 0.042),
  (1.0, 0.039), (1.2, 0.040), (1.55, 0.033), (2.0, 0.025),
))
LEG = np.array((
  (0.0, 0.085), (0.2, 0.085), (0.55, 0.072), (0.85, 0.059), (1.0, 0.055), (1.15, 0.053),
  (1.35, 0.056), (1.65, 0.044), (1.9, 0.036), (2.05, 0.037),
))
# Hand. Columns: distance from the wrist, half-thickness, half-width, bend towards the palm.
HAND = np.array((
  (-0.01, 0.021, 0.026, 0.000), (0.030, 0.021, 0.036, 0.000), (0.070, 0.020, 0.043, 0.004),
  (0.110, 0.018, 0.035, 0.014), (0.150, 0.014, 0.025, 0.030), (0.165, 0.005, 0.010, 0.038),
))
# Foot, from heel to toe. Columns: distance in front of the ankle, half-width, half-height, height of the
# centre.
FOOT = np.array((
  (-0.070, 0.014, 0.020, -0.036), (-0.058, 0.032, 0.040, -0.030), (-0.010, 0.038, 0.050, -0.022),
  (0.050, 0.043, 0.037, -0.036), (0.115, 0.046, 0.027, -0.046), (0.160, 0.034, 0.021, -0.052),
  (0.178, 0.012, 0.012, -0.057),
))
# Head, from chin to crown. Columns: height above the head joint, half-width, half-depth, shift to the front.
HEAD = np.array((
  (-0.088, 0.012, 0.014, 0.056), (-0.080, 0.036, 0.038, 0.042), (-0.058, 0.053, 0.063, 0.025),
  (-0.028, 0.063, 0.080, 0.014), (0.010, 0.070, 0.091, 0.008), (0.045, 0.073, 0.097, 0.002),
  (0.080, 0.072, 0.095, -0.002), (0.108, 0.062, 0.083, -0.004), (0.130, 0.042, 0.057, -0.005),
  (0.140, 0.010, 0.014, -0.005),
))
NOSE = np.array((
  (0.032, 0.006, 0.008, 0.097), (0.010, 0.011, 0.015, 0.104), (-0.004, 0.013, 0.014, 0.102),
  (-0.010, 0.004, 0.005, 0.097),
))
EAR = np.array((
  (0.056, 0.003, 0.006, -0.002), (0.044, 0.009, 0.017, -0.002), (0.014, 0.008, 0.014, 0.000),
  (0.000, 0.003, 0.005, 0.002),
))
EAR_SIDE = 0.073  # distance of the ear's rings from the middle of the head

# Hair, with the same columns as HEAD. At the front, the lower rings of the hair are inside the head, so the
# face is visible.
_HAIR_CAP = np.array((
  (-0.030, 0.050, 0.040, -0.048), (0.000, 0.066, 0.056, -0.042), (0.035, 0.073, 0.072, -0.028),
  (0.070, 0.075, 0.088, -0.013), (0.098, 0.068, 0.091, -0.003), (0.122, 0.053, 0.074, -0.002),
  (0.140, 0.030, 0.042, -0.004), (0.148, 0.006, 0.008, -0.005),
))
HAIR_THIN = _HAIR_CAP + np.array((0.005, 0.005, 0.005, 0.0)) * (_HAIR_CAP > (0.130, 0, 0, 9))
HAIR_FULL = _HAIR_CAP + np.array((0.013, 0.013, 0.013, 0.0)) * (_HAIR_CAP > (0.130, 0, 0, 9))
_HAIR_CURTAIN = np.array((  # first column: 0 at the tips of the hair, 1 at its top
  (0.0, 0.052, 0.020, -0.064), (0.12, 0.076, 0.040, -0.062), (0.4, 0.085, 0.052, -0.050),
  (0.65, 0.087, 0.056, -0.042), (0.85, 0.086, 0.062, -0.035), (1.0, 0.080, 0.070, -0.030),
))
HAIR_MEDIUM = _HAIR_CURTAIN * (0.16, 1, 1, 1) - (0.10, 0, 0, 0)
HAIR_LONG = _HAIR_CURTAIN * (0.31, 1, 1, 1) - (0.25, 0, 0, 0)
HAIR_BUN = np.array((
  (0.060, 0.010, 0.010, -0.120), (0.072, 0.035, 0.035, -0.125), (0.100, 0.042, 0.042, -0.125),
  (0.126, 0.032, 0.032, -0.122), (0.136, 0.008, 0.008, -0.120),
))
HAIR_TAIL = np.array((
  (-0.170, 0.008, 0.008, -0.125), (-0.120, 0.024, 0.020, -0.130), (-0.030, 0.032, 0.026, -0.140),
  (0.040, 0.030, 0.028, -0.130), (0.075, 0.012, 0.014, -0.105),
))

# Hats, with the same columns as HEAD.
HAT_CROWN = np.array((
  (0.062, 0.086, 0.108, -0.002), (0.088, 0.086, 0.108, -0.003), (0.122, 0.075, 0.095, -0.004),
  (0.152, 0.048, 0.060, -0.005), (0.162, 0.008, 0.010, -0.005),
))
HAT_BEANIE = HAT_CROWN + np.array(((-0.016,), (-0.016,), (0.0,), (0.010,), (0.010,))) * (1, 0, 0, 0)
HAT_PEAK = np.array((
  (0.062, 0.012, 0.016, 0.098), (0.062, 0.064, 0.058, 0.116), (0.070, 0.066, 0.056, 0.112),
  (0.074, 0.014, 0.016, 0.098),
))
HAT_BRIM = np.array((
  (0.064, 0.060, 0.070, 0.000), (0.060, 0.145, 0.170, 0.000), (0.067, 0.145, 0.170, 0.000),
  (0.074, 0.060, 0.070, 0.000),
))

# Neck and clothes around it. The first column is the height above the neck joint. The other columns are the
# same as in HEAD.
NECK = np.array((
  (-0.050, 0.062, 0.060, 0.000), (0.000, 0.052, 0.052, 0.000), (0.070, 0.049, 0.050, 0.018),
  (0.100, 0.046, 0.048, 0.024),
))
COLLAR = np.array(((-0.035, 0.082, 0.078, -0.002), (0.0, 0.070, 0.070, 0.004), (0.032, 0.064, 0.066, 0.010)))
HOOD = np.array((
  (-0.100, 0.030, 0.020, -0.085), (-0.060, 0.095, 0.050, -0.075), (-0.010, 0.105, 0.062, -0.062),
  (0.030, 0.085, 0.045, -0.055), (0.050, 0.040, 0.020, -0.055),
))
SCARF = np.array((
  (-0.045, 0.085, 0.080, 0.000), (-0.020, 0.105, 0.102, 0.004), (0.025, 0.100, 0.098, 0.012),
  (0.050, 0.075, 0.075, 0.018),
))
# fmt: on
