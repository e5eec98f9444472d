"""What every test of this folder begins with."""

import pytest

from tests.supervision import family


@pytest.fixture(autouse=True)
def _fresh() -> None:
    """Nothing of another test's actors."""
    family.forget()
