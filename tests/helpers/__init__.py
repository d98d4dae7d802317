"""What the tests share: files, models, a Hub on loopback, ways to run commands."""

import pytest

pytest.register_assert_rewrite("helpers.contract")
