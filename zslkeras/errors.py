"""The one exception that means: what you gave us is wrong, and here is the sentence that says how."""


class InputError(ValueError):
    """Wrong input. The message names the thing, the value got and the value wanted; a command exits with code 2."""
