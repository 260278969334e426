// Verifies requests with one of the libraries that handlers of webhooks use.
//
// Reads an array of {secret, headers, body} from stdin. Writes an array with what the library says
// of each body as it came, and of the body parsed and written again: null if it accepts it.
import { text } from "node:stream/consumers";

const standard = (headers) =>
  Object.fromEntries(Object.entries(headers).map(([name, value]) => [name.replace("svix-", "webhook-"), value]));

const libraries = {
  async "@clerk/backend"() {
    const { verifyWebhook } = await import("@clerk/backend/webhooks");
    return async ({ secret, headers, body }) => {
      const request = new Request("http://app:3000/api/webhooks/clerk", { method: "POST", headers, body });
      const event = await verifyWebhook(request, { signingSecret: secret });
      if (event.type !== JSON.parse(body).type) throw new Error("this is another event");
    };
  },
  async standardwebhooks() {
    const { Webhook } = await import("standardwebhooks");
    return ({ secret, headers, body }) => new Webhook(secret).verify(body, standard(headers));
  },
  async svix() {
    const { Webhook } = await import("svix");
    return ({ secret, headers, body }) => new Webhook(secret).verify(body, headers);
  },
  async "svix-1"() {
    const { Webhook } = await import("svix-1");
    return ({ secret, headers, body }) => new Webhook(secret).verify(body, headers);
  },
};

const verify = await libraries[process.argv[2]]();

async function verdict(request) {
  try {
    await verify(request);
    return null;
  } catch (error) {
    return error.message;
  }
}

const verdicts = [];
for (const request of JSON.parse(await text(process.stdin))) {
  const again = JSON.stringify(JSON.parse(request.body));
  verdicts.push([await verdict(request), await verdict({ ...request, body: again })]);
}
process.stdout.write(JSON.stringify(verdicts));
