"""Every test here has a cache of its own, and neither a classroom's folder nor a proxy."""

import pytest

from microformer import files


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setattr(files, "cache_folder", lambda: folder)
    for name in ("MICROFORMER_CORPORA", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return folder / "corpora"
