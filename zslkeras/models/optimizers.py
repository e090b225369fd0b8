"""Optimizers: Keras' Adam as every model makes it, and three that Keras does not have."""

import keras
import tensorflow as tf


def adam(learning_rate, weight_decay=0.0):
    """Adam with decoupled weight decay."""
    return keras.optimizers.Adam(learning_rate, weight_decay=weight_decay or None)  # Keras refuses a decay of 0


@keras.saving.register_keras_serializable("zslkeras")
class CoupledRMSprop(keras.optimizers.Optimizer):
    """RMSprop as PyTorch computes it, which MSDN's published runs used: the decay is part of the gradient, epsilon is
    outside the root, and the rate is outside the momentum."""

    def __init__(self, learning_rate, decay=0.0, momentum=0.0, rho=0.99, epsilon=1e-8, **kwargs):
        super().__init__(learning_rate, **kwargs)
        self.decay, self.momentum, self.rho, self.epsilon = decay, momentum, rho, epsilon

    def build(self, variables):
        if not self.built:
            super().build(variables)
            self._squares, self._moves = self.add_optimizer_variables(variables, ["square", "move"])

    def update_step(self, gradient, variable, learning_rate):
        place = self._get_variable_index(variable)
        squares, moves = self._squares[place].value, self._moves[place].value
        gradient = gradient + self.decay * variable
        square = self.rho * squares + (1 - self.rho) * tf.square(gradient)
        move = self.momentum * moves + gradient / (tf.sqrt(square) + self.epsilon)
        self.assign(squares, square)
        self.assign(moves, move)
        self.assign_sub(variable, tf.cast(learning_rate, variable.dtype) * move)

    def get_config(self):
        names = ("decay", "momentum", "rho", "epsilon")
        return super().get_config() | {name: getattr(self, name) for name in names}


class CoupledAdam(keras.optimizers.Optimizer):
    """Adam as PyTorch computes it, by which DCEN's lineage was trained: the decay is part of the gradient.

    Args:
        learning_rate, beta1, beta2: as of Adam.
        decay: what each variable adds of itself to its gradient.
        group: variables with a rate of their own.
        group_rate: that rate, times the learning rate.
        start: how many steps pass before the first one of the group.
    """

    def __init__(self, learning_rate, beta1=0.9, beta2=0.999, decay=0.0, group=(), group_rate=1.0, start=0, **kwargs):
        super().__init__(learning_rate, **kwargs)
        self.beta1, self.beta2, self.decay = beta1, beta2, decay
        self.group, self.group_rate, self.start = {id(variable) for variable in group}, group_rate, start

    def build(self, variables):
        if not self.built:
            super().build(variables)
            self._means, self._squares = self.add_optimizer_variables(variables, ["mean", "square"])
            self._in_group = [id(variable) in self.group for variable in variables]

    def update_step(self, gradient, variable, learning_rate):
        place = self._get_variable_index(variable)
        means, squares = self._means[place].value, self._squares[place].value
        rate, step = tf.cast(learning_rate, variable.dtype), tf.cast(self.iterations.value + 1, variable.dtype)
        gradient = gradient + self.decay * variable
        if self._in_group[place]:
            rate, step = rate * self.group_rate, step - tf.cast(self.start, variable.dtype)
            gradient = tf.where(step > 0, gradient, 0.0)  # moments of zero move nothing
            step = tf.maximum(step, 1.0)
        mean = self.beta1 * means + (1 - self.beta1) * gradient
        square = self.beta2 * squares + (1 - self.beta2) * tf.square(gradient)
        self.assign(means, mean)
        self.assign(squares, square)
        spread = tf.sqrt(square / (1 - self.beta2**step)) + 1e-8
        self.assign_sub(variable, rate * mean / (1 - self.beta1**step) / spread)


class AdamWithSlowPart(keras.optimizers.Adam):
    """Adam whose rate is `share` times as high for some variables, which do not decay."""

    def __init__(self, *args, slow=(), share=1.0, **kwargs):
        super().__init__(*args, **kwargs)
        self.slow, self.share = slow, share
        if slow:
            self.exclude_from_weight_decay(slow)

    def build(self, variables):
        super().build(variables)
        self._slow_places = {self._get_variable_index(variable) for variable in self.slow}

    def update_step(self, gradient, variable, learning_rate):
        slow = self._get_variable_index(variable) in self._slow_places
        super().update_step(gradient, variable, learning_rate * self.share if slow else learning_rate)
