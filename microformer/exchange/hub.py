"""Models on Hugging Face's hub, fetched into its own cache by its own library: only what is read here."""

import textwrap
from pathlib import Path

from microformer.errors import RunError

# Not the same weights in several formats, nor any code.
_WANTED = [
    "config.json", "generation_config.json", "model.safetensors", "model-*.safetensors", "model.safetensors.index.json",
    "tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt",
]  # fmt: skip
_OLD = ["pytorch_model.bin", "pytorch_model-*.bin", "pytorch_model.bin.index.json"]


def fetched(name: str) -> Path:
    """The folder of a model, downloaded if it is not in the cache.

    Args:
        name: `owner/name`, or a name alone for the few that have no owner.

    Raises:
        RunError: there is no such model, or no network.
    """
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        try:
            there = [one.rfilename for one in HfApi().model_info(name, timeout=10).siblings or ()]
        except HfHubHTTPError:
            raise
        except Exception:  # no network, told by whichever library noticed: what is in the cache will do, if it is
            return Path(snapshot_download(name, allow_patterns=_WANTED, local_files_only=True))
        safe = any(one.endswith(".safetensors") and "/" not in one for one in there)
        return Path(snapshot_download(name, allow_patterns=_WANTED if safe else _WANTED + _OLD))
    except GatedRepoError as error:
        raise RunError(
            f"the hub gives the model {name!r} to those alone who agreed to its licence.",
            f"agree to it on the hub's page of {name}, then say who you are: hf auth login.",
        ) from error
    except RepositoryNotFoundError as error:
        raise RunError(
            f"the hub has no model {name!r} that can be read by anyone.", "check its name; a folder is ./name."
        ) from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        reason = "no connection, and it is not in the cache"
        if isinstance(error, HfHubHTTPError):
            reason = textwrap.shorten(str(error).splitlines()[0], 120)
        raise RunError(
            f"there is no {name!r} here, and it can't be fetched from the hub: {reason}.",
            "check the path or the name, and the network.",
        ) from error
