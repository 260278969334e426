// Parses the JSON texts of an array on stdin and writes them again, as handlers of webhooks do.
import { text } from "node:stream/consumers";

const documents = JSON.parse(await text(process.stdin));
const written = documents.map((document) => JSON.stringify(JSON.parse(document)));
process.stdout.write(JSON.stringify(written));
