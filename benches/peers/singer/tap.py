"""tap-clerk with another address than that of Clerk."""

import os

from tap_clerk.client import ClerkStream
from tap_clerk.streams import UsersStream
from tap_clerk.tap import TapClerk

# The tap has no settings for these.
ClerkStream.url_base = f"{os.environ['CLERK_API_URL']}/v1"
# The largest page of Clerk. The default of the tap is 100.
ClerkStream.API_LIMIT_PAGE_SIZE = 500


class TapClerkUsers(TapClerk):
    """Has only the stream of users, as if no other were selected."""

    def discover_streams(self):
        return [UsersStream(self)]


TapClerkUsers.cli()
