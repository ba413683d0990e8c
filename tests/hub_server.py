"""The name by which tests know the test Hub; it is made in `tests/hub`."""

from tests.hub.repository import LARGE_FILES as LARGE_FILES
from tests.hub.server import HubServer as HubServer
