"""The critics that runs are tested with."""

import pytest

from builders import TINY


@pytest.fixture(scope="module", params=TINY)
def critic(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name
