"""zslkeras serve --model DIR: runs an HTTP server for an export, as TensorFlow Serving does.

DIR is a `saved_model`, or the folder of its run. The server is for a laptop and for tests: it listens on this machine
only unless --host says otherwise, has no passwords, and limits what a request may take. With --page, its address shows
a page in a browser: images are recognised, of one's own or of --gallery, and classes are described, by attributes or
in words, and changed.
"""

import dataclasses

from zslkeras.cli import flags


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is served, and where"""

    model: str | None = flags.flag(
        None, "folder of an export, or of a run that has one, as in --model runs/msdn-shapes"
    )
    port: int = flags.flag(8501, "port to listen on; 0 for a free one", least=0, most=65535)
    host: str = flags.flag("127.0.0.1", "address to listen on; the default is this machine only")
    known_as: tuple[str, ...] = flags.flag(
        (), "a name by which clients call this machine, besides localhost and its own; repeat for more", repeat=True
    )
    name: str | None = flags.flag(None, "name of the model for clients; its method if not given")
    page: bool = flags.flag(False, "also serve a page to try the model in a browser; for exports that take images")
    gallery: str | None = flags.flag(None, "with --page: a folder of images to try")
    text_encoder: str | None = flags.flag(
        None,
        "with --page: the folder of a sentence encoder, or hf://NAME; that of the training if not given",
    )


def main(settings):
    try:
        from zslkeras.serving import page, rest
    except ModuleNotFoundError as error:
        raise flags.InputError(
            f"serve: needs {error.name}; wanted the extra [serve], as in pip install -e '.[serve]'"
        ) from None
    from zslkeras.serving import answer_file, recognise

    exported = recognise.Exported(settings.model)
    name = settings.name or exported.metadata["model"]
    images = answer_file.images_in([settings.gallery]) if settings.gallery else ()
    shown = page.Page(exported, name, settings.text_encoder, images) if settings.page else None
    rest.serve(exported.model, name, settings.host, settings.port, known_as=settings.known_as, page=shown)


def _check(settings, given, arguments):
    del arguments
    for name in ("gallery", "text_encoder"):
        if name in given and not settings.page:
            raise flags.InputError(f"--{name}: got it without --page; wanted a page that shows it")


COMMAND = flags.Command(
    "zslkeras serve",
    __doc__,
    Settings,
    example="zslkeras serve --model runs/msdn-shapes --port 8501",
    needed=("model",),
    check=_check,
)
