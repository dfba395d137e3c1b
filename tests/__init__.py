"""The tests: a folder for each folder of the library and of what stands beside it; their tools are in tools/."""

import pytest

pytest.register_assert_rewrite("tests.tools")  # so that what fails there is shown as it is in a test
