"""What differs from a model's defaults for a dataset, each with its source or the command that chose it.

CONFIGS[(model, dataset)] holds for any features, CONFIGS[(model, dataset, features)] for those features alone and on
top of the former.
"""

import dataclasses
import difflib
import math
import typing

from zslkeras.errors import InputError

# ASPN with prototypes compared by cosine: on validation every part of it beat the form printed, see below.
_COSINE = {
    "embedding_scaling": "centred_l2",
    "visual_activation": "linear",
    "similarity": "cosine",
    "decision": "cosine",
    "temperature": 20.0,
    "reduction": "sum",
    "classes_in_loss": "seen",
    "noise_dim": 16,
    "critic_weight": 0.01,
    "cycle_weight": 0.1,
    "penalty": "norm",
    "beta": 10.0,
}

# DCEN on photographs: no early end, which might come before the backbone is trained at all.
_RESNET101 = {"backbone": "resnet101", "weights": "imagenet", "image_size": 448, "patience": None}

CONFIGS = {
    # Sentence embeddings of 1024 numbers: noise as wide as CUB's attributes instead. Not measured here.
    ("aspn", "cub"): {"noise_dim": 312},
    ("aspn", "flo"): {"noise_dim": 312},
    # Tuned on validation folds 0-2, one seed each: `python -m experiments.compare --first_fold 0 ...` with --set.
    # Means of T / H there: ESZSL 44.2 / 45.1; the printed form is at chance. As the ablation "baseline": with cosine,
    # centred_l2, temperature 20 and E's hidden layer of ReLUs 42.9 / 46.4; with embeddings centred_l2 46.6 / 51.2; with
    # a linear hidden layer 51.4 / 55.2; with whitened features, embeddings only centred and theta 0.1 53.5 / 57.7, of
    # which theta is T +2.5. The rest of ASPN then adds nothing: 53.6 / 57.7 with alpha 0.05, the same with 0.3.
    # On folds 3-5, which none of this had seen, the last steps are worth nothing: 59.8 / 59.3, 60.1 / 59.1 before them.
    ("aspn", "flo", "mobilenetv2"): {
        **_COSINE,
        "hidden": 512,
        "critic_hidden": 256,
        "attention_dim": 64,
        "scaling": "centred_l2",
        "whitening": 8.0,
        "embedding_scaling": "centred",
        "hidden_activation": "linear",
        "alpha": 0.05,
        "theta": 0.1,
        "learning_rate": 3e-4,
        "epochs": 12,
    },
    # Tuned likewise on folds 0-2: T / H 62.1 / 66.8 beside ESZSL's 64.3 / 63.6 (63.3 / 68.5 with the paper's widths, at
    # four times the cost). Without whitening a nearest prototype got no further than 39.5 / 35.3: most of what varies
    # in these features is nuisance within the class.
    ("aspn", "shapes"): {
        **_COSINE,
        "hidden": 512,
        "critic_hidden": 256,
        "attention_dim": 64,
        "scaling": "standard",
        "whitening": 0.1,
        "alpha": 0.1,
        "theta": 0.1,
        "semantic_theta": 1.0,
        "semantic_decision": 1.0,
        "learning_rate": 1e-3,
        "patience": 20,
    },
    # As released; CUB's are the defaults. The paper prints lambda_cal 0 for SUN, and 0.1, 0.001 and momentum 0.9 for
    # AWA2. Its T comes from trainings of their own, by comments in the code: lambda_cal 0.18 on CUB, 0.3 on AWA2.
    ("msdn", "sun"): {
        "lambda_cal": 1e-4,
        "lambda_distill": 0.01,
        "alpha1": 0.7,
        "alpha2": 0.3,
        "sampler": "balanced",
        "epochs": 70,
    },
    # 40 classes and a row of each make a batch: the 23,527 steps of the released 50 "epochs" are 40 epochs of such.
    # It also sets negative attributes to zero: --negatives zero.
    ("msdn", "awa2"): {
        "momentum": 0.0,
        "lambda_cal": 0.12,
        "lambda_distill": 1e-7,
        "alpha1": 1.0,
        "alpha2": 0.0,
        "normalize_vectors": True,
        "sampler": "balanced",
        "batch_size": 40,
        "epochs": 40,
    },
    # Two settings were tried on FLO's published validation classes with 7 x 7 maps of MobileNetV2, T / H: these, with 6
    # epochs, 38.7 / 43.6; region_scaling standard 33.6 / 40.0; ESZSL on their pooled features 38.0 / 43.4.
    ("msdn", "flo"): {
        "region_scaling": "centred_l2",
        "embedding_scaling": "centred_l2",
        "temperature": 20.0,
        "start": 0.01,
        "optimizer": "adam",
        "learning_rate": 1e-3,
        "weight_decay": 1.0,
        "epochs": 5,
    },
    # Tuned on the published validation classes of draws 0-2, one seed each: `python -m experiments.compare --model msdn
    # --dataset shapes --draw K --first_fold 0 --folds 1 --seeds 1 --rows full,eszsl ...` with --set. Means of T / H:
    # ESZSL 52.4 / 54.9, these settings 59.8 / 59.0, as the ablation "a_to_v" 60.2 / 60.3. How they came about, on draws
    # 0 and 1 (ESZSL 51.4 / 54.6): as released, 10 epochs 26.5 / 17.1; with both scalings, temperature 20 and Adam at
    # 1e-3 37.0 / 35.0; with weights that start at 0.1 47.1 / 48.9, at 0.01 52.2 / 53.3; with the rate and the decay
    # 59.6 / 58.7. Whitened regions gave no more: 58.8 / 59.3.
    ("msdn", "shapes"): {
        "region_scaling": "standard",
        "embedding_scaling": "centred_l2",
        "temperature": 20.0,
        "start": 0.01,
        "optimizer": "adam",
        "learning_rate": 3e-3,
        "weight_decay": 1.0,
        "epochs": 60,
    },
    # The backbone and the schedule of later code by DCEN's authors, which trains CUB and aPY first with it frozen and
    # then all weights, SUN only frozen, CUB's frozen part in batches of 256, and all of aPY by SGD, at the rate which
    # is here the backbone's. AWA2 as CUB. sigma: 0.3 and less where there are fewer attributes, "small on aPY" in
    # Fig. 6 (a). Queues are at most half the rows of stage tune. None of it was run: it takes a GPU.
    ("dcen", "cub"): {**_RESNET101, "frozen_epochs": 90, "epochs": 180, "batch_size": 32, "queue_size": 1024},
    ("dcen", "awa2"): {**_RESNET101, "frozen_epochs": 90, "epochs": 180, "batch_size": 32, "sigma": 0.2},
    ("dcen", "apy"): {
        **_RESNET101,
        "frozen_epochs": 90,
        "epochs": 180,
        "backbone_rate": 0.1,
        "sigma": 0.1,
        "queue_size": 512,
    },
    ("dcen", "sun"): {**_RESNET101, "freeze_backbone": True, "queue_size": 2048},
    # A few epochs, for two cores. Offline, --set weights=FILE. Tried once before on the published validation classes,
    # with six epochs and the rate dropped after the fifth: T / H 36.2 / 39.5, falling in that one; ESZSL on features of
    # the same weights and size 33.8 / 39.0.
    ("dcen", "flo"): {
        "backbone": "mobilenetv2",
        "weights": "imagenet",
        "image_size": 128,
        "crop_scale": (0.4, 1.0),
        "blocks": 1,
        "feature_dim": 512,
        "hidden": 512,
        "queue_size": 1024,
        "learning_rate": 1e-3,
        "backbone_rate": 0.1,
        "frozen_epochs": 1,
        "drop_every": 3,
        "epochs": 7,
        "batch_size": 32,
        "patience": None,
    },
    # Tuned on the published validation classes of draws 3 and 5, one seed each. Means of T / H: ESZSL 57.0 / 53.6. At
    # 64 pixels without L_id, 24 epochs, 51.9 / 54.3 (draw 4: 50.2 / 52.4, ESZSL 55.7 / 55.8); more epochs teach it the
    # seen classes alone, draw 5 in 60 of them 46.7 / 51.0. At 32 pixels 54.8 / 56.2 in 60 epochs, with weight_decay
    # 1e-3 and 40 epochs 55.8 / 56.5, all without L_id; with lambda1 0.02, otherwise as before the decay, 55.0 / 55.5;
    # these settings 62.5 / 56.6 on draw 3, with lambda1 0.1 59.8 / 56.9, without L_id 61.2 / 55.7. lambda1 0.1 was
    # worse than 0 at 64 pixels, draw 3: 47.0 / 45.3 against 58.9 / 55.6. Worse too: lambda2 5 47.4 / 43.3, lambda2 0.1
    # 43.5 / 45.0, every class masked by sigma 0.5 with lambda2 5 42.1 / 45.6, batches of 16 51.1 / 50.2; and on draw 3
    # at 64 pixels sigma 0.1 54.0 / 46.1, with two blocks besides 50.6 / 43.7. Without the second term of Eq. (3) and
    # without L_sp and L_id all classes fall together.
    # On draws 3, 5 and 10 (ESZSL 54.2 / 52.3) these settings have 51.2 / 52.9, with averaging 0.85 49.9 / 51.2, as the
    # ablation "vcm" with lambda1 0.1 51.9 / 52.0, without L_id 50.8 / 52.7; without L_id, with a rate that never drops
    # 50.2 / 52.5, feature_dim 1024 48.1 / 46.2, with it learning_rate 2e-4 and backbone_rate 5 51.3 / 53.6, which at 48
    # pixels has 44.4 / 53.5 on draws 5 and 10 (ESZSL 56.4 / 54.9).
    ("dcen", "shapes"): {
        "image_size": 32,
        "views": "flip",
        "crop_scale": (0.5, 1.0),
        "blocks": 1,
        "lambda1": 0.02,
        "lambda2": 1.0,
        "momentum": 0.99,
        "feature_dim": 256,
        "hidden": 256,
        "learning_rate": 1e-3,
        "weight_decay": 1e-3,
        "drop_every": 30,
        "queue_size": 512,
        "batch_size": 32,
        "epochs": 40,
        "patience": None,
    },
    # Sec. 4; CUB's are the defaults.
    ("drmn", "sun"): {"beta": 0.4},
    ("drmn", "awa2"): {"lambda_sc": 0.2, "lambda_gc": 0.5},
    # Tuned on the published validation classes of draws 3-5, one seed each, as the ablation "dab"; what is averaged, on
    # those of draws 3-5, 10 and 11, whole. Means of T / H over the latter: ESZSL 55.3 / 53.6; these settings 60.9 /
    # 58.7 at the chosen epoch, 56.6 / 56.8 in the last five; without averaging 59.3 / 56.9 and 51.3 / 51.3. As "dab",
    # with averaging, chosen and last: 59.3 / 58.3 and 55.7 / 56.0, with the rate halved every 7 epochs 56.4 / 55.9 and
    # 53.0 / 54.2, with averaging 0.93 58.9 / 57.1 and 56.3 / 55.7, 0.7 59.9 / 59.5 and 55.1 / 55.7, weight_decay 3 58.8
    # / 54.3 and 56.6 / 52.9, regions centred_l2 (rate halved) 55.0 / 54.2 and 53.3 / 53.2; without channel attention
    # 61.2 / 59.6 and 57.9 / 58.0. How the rest came about, without averaging, draws 3-5, ESZSL 56.6 / 54.3: at rate
    # 1e-3, weight_decay 3, halve_every 10 and 30 epochs 51.9 / 49.5; with centred embeddings 56.3 / 54.9; from there
    # with prototype_length 1 52.9 / 52.1, scale 4.5 51.8 / 47.6; with the rate and the decay, halved every 20 of 60
    # epochs, 58.3 / 56.7. On top of these: fused_level -3 59.8 / 57.3 and -1 59.5 / 57.2, norm_momentum 0.99 58.7 /
    # 57.7, lambda_sc 0.1 57.6 / 55.0, batches of 64 52.6 / 52.2.
    ("drmn", "shapes"): {
        "region_scaling": "standard",
        "embedding_scaling": "centred_l2",
        "prototype_length": 0.01,
        "lambda_sc": 0.02,
        "scale": 3.0,
        "learning_rate": 3e-3,
        "halve_every": 35,
        "weight_decay": 1.0,
        "averaging": 0.85,
        "epochs": 35,
        "patience": None,
    },
    # The settings of shapes at a lower rate, tried once on FLO's published validation classes with 7 x 7 maps of
    # MobileNetV2: T / H 43.2 / 48.2 beside ESZSL's 38.0 / 43.4 on their pooled features.
    ("jlaf", "flo"): {
        "encoder_activation": "tanh",
        "region_power": 0.5,
        "region_scaling": "centred_l2",
        "embedding_scaling": "centred_l2",
        "region_dropout": 0.5,
        "alpha": 5.0,
        "learning_rate": 3e-3,
        "epochs": 15,
        "patience": 5,
    },
    # Tuned on the published validation classes of draws 3-5, one seed each.
    ("jlaf", "shapes"): {
        "encoder_activation": "tanh",
        "region_power": 0.5,
        "region_scaling": "centred_l2",
        "region_dropout": 0.5,
        "alpha": 5.0,
        "learning_rate": 1e-2,
        "epochs": 80,
        "patience": 30,
    },
}

for _dataset in ("sun", "awa2"):
    CONFIGS["drmn_pictures", _dataset] = CONFIGS["drmn", _dataset]


def config_for(model, name, dataset, features=None, ablation=None, overrides=None, base=None):
    """The config of `model`: its defaults, what is written here, `base`, the ablation, `overrides`; the last one wins.

    Args:
        model: the model class.
        name: its name in MODELS.
        dataset, features: as given to the run, lower case.
        ablation: a name among `model.ablations`, or None.
        overrides, base: dicts of values, or of texts to be read by the field's type.
    """
    values = {**CONFIGS.get((name, dataset), {}), **CONFIGS.get((name, dataset, features), {})}
    values |= _read(model.Config, name, base or {})
    if ablation is not None:
        if ablation not in model.ablations:
            known = ", ".join(model.ablations) or "none"
            raise InputError(f"--ablation: got {ablation!r}; {name} has {known}")
        values |= model.ablations[ablation]
    values |= _read(model.Config, name, overrides or {})
    for key in ("epochs", "batch_size"):
        if values.get(key, 1) < 1:
            raise InputError(f"{key}: got {values[key]}; wanted at least 1")
    try:
        return model.Config(**values)
    except ValueError as error:
        raise InputError(f"config of {name}: {error}") from None


def _read(config, model, settings):
    types, values = typing.get_type_hints(config), {}
    for key, value in settings.items():
        if key not in types:
            close = difflib.get_close_matches(key, types, 1)
            hint = f"did you mean {close[0]}? " if close else ""
            raise InputError(f"{key}: {model} has no such setting; {hint}wanted one of {', '.join(sorted(types))}")
        try:
            values[key] = _typed(types[key], value)
        except (ValueError, TypeError, KeyError, OverflowError):
            raise InputError(f"{key}: got {value!r}; wanted {_named(types[key])}") from None
    return values


def _typed(wanted, value):
    """`value`, a text or what JSON gave, as the type a config field is declared with."""
    options = typing.get_args(wanted)
    if typing.get_origin(wanted) is tuple:
        items = value.split(",") if isinstance(value, str) else value
        return tuple(_typed(options[0], item) for item in items if item != "")
    if type(None) in options:
        none = value is None or value in ("none", "None", "")
        return None if none else _typed(_but_none(options), value)
    if wanted is bool:
        return {"true": True, "1": True, "false": False, "0": False}[str(value).lower()]
    if isinstance(value, bool) or (wanted is str and not isinstance(value, str)):
        raise ValueError(value)
    if wanted is int and isinstance(value, float) and value != int(value):
        raise ValueError(value)
    typed = wanted(value)
    if wanted is float and not math.isfinite(typed):
        raise ValueError(value)
    return typed


def _named(wanted):
    options = typing.get_args(wanted)
    if typing.get_origin(wanted) is tuple:
        return f"{_named(options[0])},{_named(options[0])},..."
    if type(None) in options:
        return f"{_named(_but_none(options))} or none"
    return {bool: "true or false", str: "text"}.get(wanted, wanted.__name__)


def _but_none(options):
    return next(option for option in options if option is not type(None))


def settings_text(config):
    """A config as one line, for the screen."""
    return ", ".join(f"{key}={value}" for key, value in dataclasses.asdict(config).items())
