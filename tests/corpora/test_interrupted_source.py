"""A preparation that was stopped still knows what it was asked for."""

from microformer import files
from microformer.corpora import Source, ensure_prepared, prepare
from microformer.corpora.prepared import MANIFEST


def test_a_book_whose_preparation_was_stopped_is_not_replaced_by_corpus_txt(tmp_path):
    book, data = tmp_path / "book.txt", tmp_path / "data"
    book.write_text("the book " * 100, encoding="utf-8")
    prepare(data, Source.files(book))
    (data / "corpus.txt").write_text("another text " * 100, encoding="utf-8")
    source = files.read_json(data / MANIFEST)["source"]
    files.write_json(data / MANIFEST, {"format": 1, "unfinished": True, "source": source})  # as a kill leaves it

    found = ensure_prepared(data, explicit=None, default_corpus="pydocs")

    assert "book.txt" in found.corpus


def test_a_stopped_preparation_that_nobody_asked_for_begins_anew_with_what_is_there(tmp_path):
    files.write_json(tmp_path / MANIFEST, {"format": 1, "unfinished": True})
    (tmp_path / "corpus.txt").write_text("a text of my own " * 100, encoding="utf-8")

    found = ensure_prepared(tmp_path, explicit=None, default_corpus="pydocs")

    assert "corpus.txt" in found.corpus
