"""What a forked command finds imported: `tests.support.forked`. Imports alone start no thread of TensorFlow's."""

import os

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"  # read once; `quiet.tensorflow` of a child would come too late

import keras_tuner  # noqa: F401
import pytest  # noqa: F401
import scipy.io
import scipy.stats  # noqa: F401
import sklearn.manifold  # noqa: F401

import experiments.rows  # noqa: F401
