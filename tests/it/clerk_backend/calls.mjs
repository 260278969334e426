// Makes calls of the library, one after the other, against the API at an address.
//
// Reads {url, key, calls} from stdin. A call is [api, method, arguments]. A text "$2.id" in the
// arguments stands for a property of the answer to the call with this number. Writes an array with
// what each call returned, or with {error: {status, code}}.
import { text } from "node:stream/consumers";
import { createClerkClient } from "@clerk/backend";

const { url, key, calls } = JSON.parse(await text(process.stdin));
const clerk = createClerkClient({ apiUrl: url, secretKey: key, telemetry: { disabled: true } });
const answers = [];

function fill(value) {
  if (Array.isArray(value)) return value.map(fill);
  if (value && typeof value === "object") {
    return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, fill(item)]));
  }
  const reference = typeof value === "string" && value.match(/^\$(\d+)\.(.*)$/);
  if (!reference) return value;
  const [, number, path] = reference;
  return path.split(".").reduce((object, name) => object[name], answers[number]);
}

for (const [api, method, args] of calls) {
  try {
    answers.push(await clerk[api][method](...fill(args)));
  } catch (error) {
    if (!error.clerkError) throw new Error(`${api}.${method}: ${error.stack}`);
    answers.push({ error: { status: error.status, code: error.errors[0].code } });
  }
}
process.stdout.write(JSON.stringify(answers));
