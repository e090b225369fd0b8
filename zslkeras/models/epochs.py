"""What Keras' `fit` does at the end of an epoch so that it trains as `training.loop` does."""

import keras


class EndOfEpoch(keras.callbacks.Callback):
    """Brings the model into the state that is judged: averages its weights, and fits what follows from them.

    The next epoch goes on from the weights as they were trained. After the last one the model keeps the averaged ones.
    """

    def __init__(self, stage=None):
        """
        Args:
            stage: a `rows.Stage` to fit on; None where nothing follows from the weights.
        """
        super().__init__()
        self.stage = stage

    def on_train_begin(self, logs=None):
        self._mean, self._trained, self._judged = [], [], False
        self._states = int(self.model.beside is not None)  # the loop judges the untrained state too

    def on_epoch_begin(self, epoch, logs=None):
        for variable, value in zip(self.model.averaged_variables if self._trained else [], self._trained, strict=True):
            variable.assign(value)
        self._trained, self._judged = [], False

    def on_test_begin(self, logs=None):
        self._judge()  # `fit` evaluates before an epoch ends

    def on_epoch_end(self, epoch, logs=None):
        self._judge()

    def _judge(self):
        if self._judged:
            return
        self._judged, variables = True, self.model.averaged_variables
        self._trained = [keras.ops.convert_to_numpy(variable).copy() for variable in variables]
        self._mean = self.model.averaged(self._mean, self._states)
        self._states += 1
        for variable, value in zip(variables, self._mean, strict=True):
            variable.assign(value)
        if self.stage is not None:
            self.model.settle(self.stage, self.stage.read)
