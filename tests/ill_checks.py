"""What a check may do to the process that it runs in. Imports nothing: each process that runs one imports this."""

import os
import time

from microformer.errors import RunError
from microformer.pipeline.doctor.findings import ok


def well(around):
    yield ok("well")


def raises(around):
    yield ok("so far")
    raise ZeroDivisionError("division\nby zero")


def refuses(around):
    raise RunError("the run is damaged.", "restore it.")


def lacks_a_package(around):
    import no_such_package  # noqa: F401  # pyright: ignore[reportMissingImports]


def runs_out_of_memory(around):
    raise MemoryError


def ends(around):
    print("the last words", flush=True)
    os._exit(7)


def never_ends(around):
    time.sleep(600)


def says_what_was_fatal(around):
    yield ok(",".join(sorted(around.fatal)))


def fills_the_disk(around):
    from microformer import files

    with files.explained(around.scratch / "x"):
        raise OSError(28, "No space left on device")
