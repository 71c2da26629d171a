"""A file is the old one or the new one."""

from pathlib import Path

import pytest

from diveqcodec.atomic import replacing


def test_a_block_that_ends_well_replaces(tmp_path: Path) -> None:
    target = tmp_path / "a"
    target.write_text("old")
    with replacing(target) as temporary:
        temporary.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt, ValueError])
def test_a_block_that_fails_leaves_the_old_file_alone(
    tmp_path: Path, error: type[BaseException]
) -> None:
    target = tmp_path / "a"
    target.write_text("old")

    def fail() -> None:
        with replacing(target) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        fail()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]
