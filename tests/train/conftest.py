from collections.abc import Iterator

import pytest

from diveqcodec.train import loop
from tests.support.training import few_blocks


@pytest.fixture(scope="module", autouse=True)
def _start_quickly() -> Iterator[None]:
    """Runs start from a basis of few blocks; that of the default takes longer than they do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "cosine_basis", few_blocks)
        yield
