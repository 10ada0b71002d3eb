"""A captured tree in memory for the tests of this folder."""

import pytest
from unit.pipeline.captured import Captured


@pytest.fixture
def one():
    made = Captured()
    yield made
    made.db.close()
