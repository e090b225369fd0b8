"""Parameters and operations, against arithmetic."""

import numpy as np
import pytest
import tensorflow as tf

from experiments.describe import SIZES, describe, flops
from zslkeras.models import MODELS


def test_products_and_convolutions_are_counted():
    generator = np.random.default_rng(0)
    first, second = (tf.constant(generator.random(shape), tf.float32) for shape in ((3, 5), (7, 5)))
    stack, kernel = tf.ones([2, 4, 6, 3]), tf.ones([2, 2, 3, 8])

    @tf.function
    def inner(x):
        return tf.matmul(x, x, transpose_a=True)  # [5, 3] by [3, 5]

    @tf.function
    def call():
        products = tf.matmul(first, second, transpose_b=True)  # [3, 5] by [5, 7]
        batched = tf.matmul(stack, stack, transpose_b=True)  # 8 of [6, 3] by [3, 6]
        convolved = tf.nn.conv2d(stack, kernel, 1, "VALID")  # 2 x 3 x 5 places, 12 numbers into 8
        return products, batched, convolved, inner(first)

    wanted = 2 * (3 * 5 * 7 + 8 * 6 * 3 * 6 + 2 * 3 * 5 * 12 * 8 + 5 * 3 * 5)
    assert flops(call) == wanted


def test_aspn_has_the_parameters_that_its_paper_prints_but_for_a_second_critic():
    text = describe(MODELS["aspn"], "aspn", ["awa1"])
    block = text.split("aspn on awa1")[1].split("\n\n")[0]
    line = next(line for line in block.splitlines() if line.split()[0] == "all")
    assert line.split()[1] == "11.363"
    critic = next(line for line in block.splitlines() if line.split()[0] == "critic")
    assert round(11.363 + float(critic.split()[1]), 1) == 13.9


@pytest.mark.parametrize("name", [name for name, model in MODELS.items() if model.eats == "maps"])
def test_models_of_maps_are_described_too(name):
    assert f"{name} on cub:" in describe(MODELS[name], name, ["cub"])


def test_the_command_needs_no_data(command, tmp_path):
    done = command("experiments.run", "--model", "aspn", "--describe")
    assert done.returncode == 0, done.err
    assert "13.9 M" in done.out
    assert not (tmp_path / "runs").exists()
    assert all(f"aspn on {dataset}:" in done.out for dataset in SIZES)
