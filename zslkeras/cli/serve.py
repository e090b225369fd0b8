"""zslkeras serve --model DIR: answers for an exported model over HTTP, as TensorFlow Serving does.

DIR is a `saved_model`, or the folder of its run. For a laptop and for tests: it listens to this machine alone unless
--host says otherwise, has no passwords, and bounds what a request may take.
"""

import dataclasses

from zslkeras.cli import flags


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is served, and where"""

    model: str | None = flags.flag(
        None, "folder of an export, or of a run that has one, as in --model runs/msdn-shapes"
    )
    port: int = flags.flag(8501, "where to listen; 0 for a free port", least=0, most=65535)
    host: str = flags.flag("127.0.0.1", "where to listen; the default is this machine alone")
    name: str | None = flags.flag(None, "what the model is called; by default its method")


def main(settings):
    try:
        from zslkeras.serving import rest
    except ModuleNotFoundError as error:
        raise flags.InputError(f"serve: needs {error.name}; wanted pip install 'zslkeras[serve]'") from None
    from zslkeras.serving import recognise

    exported = recognise.Exported(settings.model)
    rest.serve(exported.model, settings.name or exported.metadata["model"], settings.host, settings.port)


COMMAND = flags.Command(
    "zslkeras serve",
    __doc__,
    Settings,
    example="zslkeras serve --model runs/msdn-shapes --port 8501",
    needed=("model",),
)
