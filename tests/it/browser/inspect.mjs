// Opens pages in Chromium, at each width and in each colour scheme, and prints what is wrong with them.
// Arguments: the browser, and optionally a folder for screenshots. The input lists the pages as JSON: each
// has a name, and an address or a document with its headers. A page may have to be loaded again by itself.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { chromium } from "playwright-core";

const [executablePath, folder] = process.argv.slice(2);
const pages = JSON.parse(readFileSync(0, "utf8"));
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const origin = "http://status.test";
const problems = [];
let checked = 0;

// As root, Chromium has no sandbox. It opens no page but ours.
const browser = await chromium.launch({ executablePath, args: ["--no-sandbox", "--disable-gpu"] });
const context = await browser.newContext({ reducedMotion: "reduce" });
const page = await context.newPage();
let problem = () => {};
page.on("console", (message) => message.type() === "error" && problem(`console: ${message.text()}`));
page.on("pageerror", (error) => problem(`script: ${error.message}`));
page.on("response", (response) => response.status() >= 400 && problem(`${response.url()}: ${response.status()}`));

for (const { name, url, html, headers, reloads } of pages) {
  if (html) await page.route(`${origin}/`, (route) => route.fulfill({ body: html, headers }));
  if (html) await page.route(`${origin}/favicon.svg`, (route) => route.fulfill({ status: 204 }));
  for (const width of [375, 1280]) {
    for (const colorScheme of ["light", "dark"]) {
      problem = (what) => problems.push(`${name}, ${width} px, ${colorScheme}: ${what}`);
      await page.setViewportSize({ width, height: 900 });
      await page.emulateMedia({ colorScheme });
      await page.goto(url ?? `${origin}/`);
      await inspect();
      checked += 1;
      if (folder) {
        const path = `${folder}/${name.replaceAll(" ", "-")}-${width}-${colorScheme}.png`;
        await page.screenshot({ path, fullPage: true });
      }
    }
  }
  if (!html) {
    await useKeyboard();
    await showIcon();
  }
  if (reloads) await waitForReload(url);
  await page.unrouteAll();
}
await browser.close();
console.log(JSON.stringify({ checked, problems }));

// Runs all rules of axe, also those that are off by default, and looks for content that is too wide.
async function inspect() {
  // The content security policy of the page allows no script; this one comes from outside.
  const violations = await page.evaluate(`${axe}
    axe.run(document, {
      resultTypes: ["violations"],
      rules: Object.fromEntries(axe.getRules().map(({ ruleId }) => [ruleId, { enabled: true }])),
    }).then(({ violations }) => violations)`);
  for (const { id, help, nodes } of violations) {
    problem(`${id}: ${help}: ${nodes.map((node) => `${node.html} ${node.failureSummary}`).join(" | ")}`);
  }
  const tooWide = await page.evaluate(() => {
    const { scrollWidth, clientWidth } = document.documentElement;
    return scrollWidth > clientWidth && `the document is ${scrollWidth} px wide in ${clientWidth}`;
  });
  if (tooWide) problem(tooWide);
}

// Reaches every link and everything that scrolls with the Tab key, and sees where the focus is.
async function useKeyboard() {
  const wanted = await page.locator("a, [tabindex]").count();
  for (let at = 0; at < wanted; at++) {
    await page.keyboard.press("Tab");
    const [reached, outline] = await page.evaluate(() => {
      const all = [...document.querySelectorAll("a, [tabindex]")];
      const { outlineStyle, outlineWidth } = getComputedStyle(document.activeElement);
      return [all.indexOf(document.activeElement), outlineStyle !== "none" && parseFloat(outlineWidth)];
    });
    if (reached !== at) problem(`Tab reaches element ${reached} in place of ${at}`);
    if (!(outline >= 2)) problem(`the focus on element ${at} is not visible`);
  }
}

// Loads the icon as the page names it, under the page's policy.
async function showIcon() {
  const isShown = await page.evaluate(async () => {
    const icon = new Image();
    icon.src = document.querySelector("link[rel=icon]").href;
    return icon.decode().then(() => icon.width > 0, () => false);
  });
  if (!isShown) problem("the icon cannot be shown");
}

// Shortens the time until the page is loaded again, and sees that the address is the same.
async function waitForReload(url) {
  await page.route(url, async (route) => {
    const response = await route.fetch();
    await route.fulfill({ response, headers: { ...response.headers(), refresh: "1" } });
  }, { times: 1 });
  await page.goto(url);
  const again = await page.waitForRequest((request) => request.isNavigationRequest(), { timeout: 20_000 });
  if (again.url() !== url) problem(`${again.url()} is loaded again`);
}
