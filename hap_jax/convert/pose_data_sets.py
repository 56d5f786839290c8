"""Takes the network for one data set out of a 2D pose network of several data sets, and fits such networks.

A network of several data sets has lists in its `Description.network` (see `tasks/pose2d.py`): `datasets` has
the label of each head, `experts` the label of each expert.
"""

import dataclasses

import numpy as np

from hap_jax.convert import experts
from hap_jax.convert.weights import flatten, unflatten
from hap_jax.models.pose_estimator import head_names

_PER_HEAD = ("num_joints", "skeleton", "codec", "fit_aspect")
_FINAL = ("final_layer/kernel", "final_layer/bias")


def labels_of(description):
  """Returns the labels of the data sets whose heads a network has. A network of one data set: ().

  Raises:
    ValueError: if the lists of the description do not fit together. Anyone may have written the checkpoint.
  """
  network = description.network
  if "datasets" not in network:
    return ()
  labels, known = network["datasets"], network.get("experts", [])
  lists = {key: network[key] for key in _PER_HEAD if key in network}
  num_experts = description.encoder.num_experts
  if not (_are_labels(labels) and labels and _are_labels(known)):
    raise ValueError(
      f"the checkpoint records the data sets {labels!r:.80} and experts {known!r:.80}, expected texts"
    )
  for key, found in lists.items():
    if not isinstance(found, list) or len(found) != len(labels):
      raise ValueError(
        f"the checkpoint records {key}={found!r:.80}, expected a value for each of {', '.join(labels)}"
      )
  if num_experts > 1 and (len(known) != num_experts or not set(labels) <= set(known)):
    raise ValueError(
      f"the checkpoint has {num_experts} experts for {', '.join(known) or 'unknown data sets'}; expected one "
      f"label for each expert, among them {', '.join(labels)}"
    )
  return tuple(labels)


def _are_labels(value):
  return isinstance(value, list) and all(isinstance(x, str) for x in value) and len(set(value)) == len(value)


def index_of(description, label=""):
  """Returns (number of the expert, number of the head) of a data set.

  Args:
    description: the Description of a network of several data sets.
    label: the label of the data set. "": the first data set.
  Raises:
    ValueError: if the network has no head for this data set.
  """
  labels = labels_of(description)
  label = label or labels[0]
  if label not in labels:
    raise ValueError(f"--dataset={label}: the checkpoint has the data sets {', '.join(labels)}")
  known = description.network.get("experts", [])
  return known.index(label) if description.encoder.num_experts > 1 else 0, labels.index(label)


def of_label(description, label=""):
  """Returns the Description of the network for one data set.

  A Description of one data set is returned unchanged. For the arguments, see `index_of`.
  """
  labels = labels_of(description)
  if not labels:
    return description
  _, k = index_of(description, label)
  label, network = labels[k], dict(description.network)
  joints = description.classes.get(label)
  network |= {key: network[key][k] for key in _PER_HEAD if key in network}
  if joints:
    network["num_joints"] = len(joints)
  for key in ("datasets", "experts"):
    network.pop(key, None)
  return dataclasses.replace(
    description,
    encoder=dataclasses.replace(description.encoder, num_experts=1, part_features=0),
    network=network,
    classes={"joints": joints} if joints else {},
  )


def take(weights, label=""):
  """Returns the Weights of the network for one data set.

  The expert is joined with the shared part of its MLP. The head keeps the heat maps of the joints of the data
  set. Weights of one data set are returned unchanged.

  Args:
    weights: Weights.
    label: the label of the data set. "": the first data set.
  Raises:
    ValueError: if there is no such data set.
  """
  if not labels_of(weights.description):
    if label:
      raise ValueError(
        f"--dataset={label}: {weights.lineage[0]['file']} is a network of one data set: leave out --dataset"
      )
    return weights
  expert, k = index_of(weights.description, label)
  described = of_label(weights.description, label)
  names = head_names(len(labels_of(weights.description)))
  count, found = described.network["num_joints"], flatten(weights.params).get(f"{names[k]}/{_FINAL[1]}")
  available = 0 if found is None else len(found)
  if not 0 < count <= available:
    raise ValueError(
      f"{weights.lineage[0]['file']}: its head {names[k]} has {available} heat maps, but it records {count} "
      "joints"
    )
  if weights.description.encoder.num_experts > 1:
    weights = experts.choose(weights, (expert,))
  weights = _with_heads(weights, names, {names[k]: names[0]})
  params = flatten(weights.params)
  for path in (f"{names[0]}/{leaf}" for leaf in _FINAL):
    params[path] = np.ascontiguousarray(params[path][..., :count])
  variables = {**weights.variables, "params": unflatten(params)}
  return dataclasses.replace(weights, variables=variables, description=described, part=(expert, k))


def fit(weights, description):
  """Changes Weights so that they can be loaded into a network with another number of data sets.

  A network of one data set gets the expert and the head of the data set with the same joints, or of the first
  one. A network of several data sets gets experts and heads by the labels of its data sets. If the Weights
  have no experts, their last outputs of each MLP start every expert. If they have one head, it starts the
  head with the same joints.

  Args:
    weights: Weights of any task.
    description: the Description of the network.
  Returns:
    (Weights, lines of text for the log).
  Raises:
    ValueError: if the Weights have no expert for a data set of the network.
  """
  labels, given = labels_of(description), labels_of(weights.description)
  if weights.width != description.encoder.width or not (labels or given):
    return weights, ()  # `fit.fit_to` reports a different width
  if not labels:
    classes = weights.description.classes
    same = [label for label in given if classes.get(label) == description.classes["joints"]]
    label = (same or given)[0]
    return take(weights, label), (f"the file has several data sets: those parts for {label} are used",)
  weights, notes = _fit_experts(weights, description, labels)
  if weights.task != description.task:
    return weights, notes
  names, renamed = head_names(len(labels)), {}
  for k, label in enumerate(labels):
    name = _head_for(weights, given, description, label, k)
    if name is not None and name not in renamed:
      renamed[name] = names[k]
  new = [label for label, name in zip(labels, names, strict=True) if name not in renamed.values()]
  if new:
    notes += (f"heads without a head of the same data set and joints in the file: {', '.join(new)}",)
  weights = _with_heads(weights, head_names(max(len(given), 1)), renamed)
  # The heads that remain have the joints of the network, so they may be loaded.
  classes = description.classes if renamed else weights.description.classes
  return dataclasses.replace(
    weights, description=dataclasses.replace(weights.description, classes=classes)
  ), notes


def _fit_experts(weights, description, labels):
  """Returns (Weights with the experts of a network of several data sets, lines of text for the log)."""
  encoder, given = description.encoder, weights.description.encoder
  file, known = weights.lineage[0]["file"], list(weights.description.network.get("experts", ()))
  if encoder.num_experts == 1:
    if given.num_experts == 1:
      return weights, ()
    first = known.index(labels[0]) if labels[0] in known else 0
    note = f"of the experts in the file, number {first} is used"
    return experts.choose(weights, (first,)), (note,)
  count, part_features = encoder.num_experts, encoder.part_features
  if given.num_experts == 1:
    note = f"the last {part_features} outputs of each MLP of the file start all {count} experts"
    return experts.choose(weights, (0,) * count, part_features), (note,)
  if missing := [label for label in labels if label not in known]:
    raise ValueError(
      f"{file}: it has experts for {', '.join(known) or 'unknown data sets'}, but none for "
      f"{', '.join(missing)} in config.data.mixed.parts: change these labels, or config.init_from"
    )
  if given.part_features != part_features:
    raise ValueError(
      f"{file}: its experts have {given.part_features} outputs, but config.model.part_features makes "
      f"{part_features}: change this key, or config.init_from"
    )
  note = f"the experts of the file for {', '.join(labels)} are used"
  return experts.choose(weights, tuple(known.index(label) for label in labels)), (note,)


def _head_for(weights, given, description, label, k):
  """Returns the name of the head of the Weights for data set k of a network, or None.

  `given` has the labels of the data sets of the Weights.
  """
  if given and label not in given:
    return None
  number = given.index(label) if given else 0
  name = head_names(max(len(given), 1))[number]
  joints = weights.description.classes.get(label if given else "joints")
  if name not in weights.params or joints != description.classes[label]:
    return None
  count = weights.params[name]["final_layer"]["bias"].shape[0]
  return name if count == description.network["num_joints"][k] else None


def _with_heads(weights, heads, renamed):
  """Returns the Weights with some of their heads under new names. The other heads become unused tensors.

  Args:
    weights: Weights.
    heads: names of all heads of the Weights.
    renamed: {name of a head: new name}.
  """
  variables, source_names, unused = {}, {}, list(weights.unused)
  for collection, tree in weights.variables.items():
    flat = {}
    for path, leaf in flatten(tree).items():
      stack, slash, rest = path.partition("/")
      if stack in heads and stack not in renamed:
        unused += weights.source_names[path]
        continue
      new = f"{renamed.get(stack, stack)}{slash}{rest}"
      flat[new], source_names[new] = leaf, weights.source_names[path]
    variables[collection] = unflatten(flat)
  return dataclasses.replace(weights, variables=variables, source_names=source_names, unused=tuple(unused))
