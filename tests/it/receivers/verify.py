"""Verifies requests with svix.

Reads an array of {secret, headers, body} from stdin. Writes an array with what the library says of
each: null if it accepts it.
"""

import json
import sys

from svix.webhooks import Webhook, WebhookVerificationError


def verdict(request):
    try:
        Webhook(request["secret"]).verify(request["body"], request["headers"])
    except WebhookVerificationError as error:
        return str(error)
    return None


json.dump([[verdict(request)] for request in json.load(sys.stdin.buffer)], sys.stdout)
