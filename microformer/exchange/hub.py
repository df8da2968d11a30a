"""Models on Hugging Face's hub, fetched into its own cache by its own library: only what is read here."""

from pathlib import Path

from microformer.errors import RunError

# Not the same weights in several formats, nor any code.
_WANTED = ["config.json", "*.safetensors", "*.safetensors.index.json", "tokenizer*.json", "vocab.json", "merges.txt"]
_OLD = ["pytorch_model*.bin", "pytorch_model.bin.index.json"]


def fetched(name: str) -> Path:
    """The folder of a model, downloaded if it is not in the cache.

    Args:
        name: `owner/name`, or a name alone for the few that have no owner.

    Raises:
        RunError: there is no such model, or no network.
    """
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        try:
            there = [one.rfilename for one in HfApi().model_info(name, timeout=10).siblings or ()]
        except HfHubHTTPError:
            raise
        except Exception:  # no network, told by whichever library noticed: what is in the cache will do, if it is
            return Path(snapshot_download(name, allow_patterns=_WANTED, local_files_only=True))
        safe = any(one.endswith(".safetensors") for one in there)
        return Path(snapshot_download(name, allow_patterns=_WANTED if safe else _WANTED + _OLD))
    except RepositoryNotFoundError as error:
        raise RunError(
            f"the hub has no model {name!r} that can be read by anyone.", "check its name; a folder is ./name."
        ) from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise RunError(
            f"the model {name!r} can't be fetched: {str(error).splitlines()[0][:200]}", "check the network, try again."
        ) from error
