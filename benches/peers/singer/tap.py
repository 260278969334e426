"""tap-clerk, for another address than Clerk's own."""

import os

from tap_clerk.client import ClerkStream
from tap_clerk.streams import UsersStream
from tap_clerk.tap import TapClerk

# The tap has no setting for these.
ClerkStream.url_base = f"{os.environ['CLERK_API_URL']}/v1"
# The largest page that Clerk gives; the tap's own is 100.
ClerkStream.API_LIMIT_PAGE_SIZE = 500


class TapClerkUsers(TapClerk):
    """Knows the stream of users only, as if no other were selected."""

    def discover_streams(self):
        return [UsersStream(self)]


TapClerkUsers.cli()
