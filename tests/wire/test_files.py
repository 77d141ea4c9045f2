"""Pieces of a file are read as they are asked for, or it is an error."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from headstart import errors
from headstart.extents import Extent
from headstart.reading import PIECE_SIZE
from headstart.wire.files import FileReader


def test_pieces_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    content = os.urandom(3 * PIECE_SIZE + 77)
    path.write_bytes(content)
    wanted = [Extent(5, 10), Extent(PIECE_SIZE - 1, PIECE_SIZE + 2), Extent(3 * PIECE_SIZE, 77)]
    with FileReader(path) as reader:
        assert reader.size == len(content)
        pieces = list(reader.read(wanted))
    assert [piece.extent.length for piece in pieces] == [10, 1, PIECE_SIZE, 1, 77]
    for piece in pieces:
        assert piece.data is not None
        assert bytes(piece.data) == content[piece.extent.start : piece.extent.end]
        piece.release()


def test_a_file_that_became_shorter_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(1000))
    with FileReader(path) as reader:
        os.truncate(path, 600)
        with pytest.raises(errors.HeadstartError, match="ends at 600"):
            list(reader.read([Extent(500, 200)]))
