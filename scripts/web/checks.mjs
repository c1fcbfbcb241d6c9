// Tries the package in headless Chromium: node checks.mjs MODELS EXPECTED MODULES [ROUNDS [SCREENSHOT]]
//
// MODELS is a folder with story-*.gguf; EXPECTED a JSON file with the prompt, and the ids that the command goes on with for each
// of them; MODULES a folder with node_modules. With ONLY in the environment, checks whose names do not match it are left out.

import { createHash } from "node:crypto";
import { copyFileSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import assert from "node:assert/strict";

import { launch, memoryOfPages } from "./browser.mjs";
import { serve } from "./serve.mjs";

const [models, expectedFile, modules, rounds = "1000", screenshot] = process.argv.slice(2);
const expected = JSON.parse(readFileSync(expectedFile, "utf8"));
const root = resolve(import.meta.dirname, "../..");
const roots = { web: join(root, "bindings/web"), models: resolve(models) };
copyFileSync(join(models, "story-q8_0.gguf"), join(models, "storyteller.gguf"));

const isolated = await serve(roots, true);
const plain = await serve(roots, false);
const { context, profile, close } = await launch(modules);
const whole = readFileSync(join(models, "story-q4_0.gguf"));
const sha256 = createHash("sha256").update(whole).digest("hex");
const broken = { "cut.gguf": whole.subarray(0, whole.length >> 1), "noise.gguf": Buffer.alloc(5000, 7), "empty.gguf": Buffer.alloc(0) };
for (const [name, bytes] of Object.entries(broken)) writeFileSync(join(models, name), bytes);
const altered = Buffer.from(whole);
altered[whole.length - 100] ^= 1;
writeFileSync(join(models, "altered.gguf"), altered);

let failed = 0;
let passed = 0;
/** Runs `body` on a page of `server` that has the package as `openelm`. */
async function check(name, server, body, folder = "web") {
  if (!new RegExp(process.env.ONLY ?? "").test(name)) return;
  const page = await context.newPage();
  page.on("console", (message) => message.type() === "error" && console.error(`  ${name}: ${message.text()}`));
  try {
    await page.goto(server.address);
    await page.evaluate(async (folder) => {
      globalThis.openelm = await import(`/${folder}/index.js`);
      /** The kind and the sentence of the error that `work` ends with. */
      globalThis.errorOf = async (work) => {
        try {
          await work();
        } catch (error) {
          if (error instanceof openelm.OpenELMError) return `${error.kind}: ${error.message}`;
          return `${error.name}: ${error.message}`;
        }
        return "no error";
      };
    }, folder);
    await body(page);
    console.log(`ok      ${name}`);
    passed += 1;
  } catch (error) {
    console.log(`FAILED  ${name}: ${error.message}`);
    failed += 1;
  } finally {
    await page.close();
  }
}

const greedy = (page, options) =>
  page.evaluate(async ({ prompt, file, count, load }) => {
    const model = await openelm.Model.load(`/models/${file}`, load);
    const generation = model.session().generate(prompt, { temperature: 0, maxTokens: count, ignoreEnd: true });
    const ids = [];
    for await (const piece of generation) ids.push(...piece.tokens);
    const { threads, module, notes } = model;
    model.close();
    return { ids, finish: generation.finish, threads, module, notes };
  }, options);

for (const [file, ids] of Object.entries(expected.ids)) {
  for (const [relaxed, threads] of [[true, 2], [true, 1], [false, 2]]) {
    const how = `${relaxed ? "with" : "without"} relaxed SIMD, ${threads} thread${threads > 1 ? "s" : ""}`;
    await check(`${file} gives the command's tokens ${how}`, isolated, async (page) => {
      const found = await greedy(page, { prompt: expected.prompt, file, count: ids.length, load: { relaxed, threads } });
      assert.deepEqual(found.ids, ids);
      assert.equal(found.finish, "length");
      assert.equal(found.threads, threads);
      assert.equal(found.module, relaxed ? "openelm-relaxed" : "openelm");
      assert.deepEqual(found.notes, []);
    });
  }
}

await check("a page that is not isolated has one thread and says so", plain, async (page) => {
  const [file, ids] = Object.entries(expected.ids).at(-1);
  const found = await greedy(page, { prompt: expected.prompt, file, count: ids.length, load: { threads: 2 } });
  assert.deepEqual([found.ids, found.threads], [ids, 1]);
  assert.match(found.notes.join(), /not cross-origin isolated/);
});

await check("what is fetched is kept, and asked for once", isolated, async (page) => {
  const file = "/models/story-q4_0.gguf";
  const asked = () => isolated.requests.filter(({ path }) => path === file).length;
  await page.evaluate((file) => openelm.Model.forget(file), file);
  const before = asked();
  const load = () =>
    page.evaluate(async ({ file, sha256 }) => {
      const phases = new Set();
      const model = await openelm.Model.load(file, { sha256, onProgress: ({ phase }) => phases.add(phase) });
      model.close();
      return [...phases];
    }, { file, sha256 });
  assert.deepEqual(await load(), ["download", "read", "open"]);
  assert.deepEqual(await load(), ["read", "open"]);
  assert.equal(asked() - before, 1);
  assert.equal(await page.evaluate(({ file, sha256 }) => openelm.Model.forget(file, { sha256 }), { file, sha256 }), true);
  assert.equal(await page.evaluate(({ file, sha256 }) => openelm.Model.forget(file, { sha256 }), { file, sha256 }), false);
});

await check("a connection that breaks is an error, and the next attempt goes on", isolated, async (page) => {
  const errorOf = (options) =>
    page.evaluate((options) => errorOf(async () => (await openelm.Model.load("/breaking/story-q4_0.gguf", options)).close()), options);
  assert.match(await errorOf({ sha256 }), /^network: .*story-q4_0.gguf.* bytes/);
  assert.equal(await errorOf({ sha256 }), "no error");
  const last = isolated.requests.at(-1);
  assert.match(last.range ?? "none", /^bytes=[1-9]/);
  assert.match(await errorOf({ store: false }), /^network: /);
});

await check("a file from the device, and one that is not stored", isolated, async (page) => {
  const found = await page.evaluate(async () => {
    const blob = await (await fetch("/models/story-q4_0.gguf")).blob();
    const lengths = [];
    for (const source of [new File([blob], "mine.gguf"), "/models/story-q4_0.gguf"]) {
      const model = await openelm.Model.load(source, { store: false });
      lengths.push((await model.session().generate("The sea", { maxTokens: 8, ignoreEnd: true }).text()).length > 0);
      model.close();
    }
    return lengths;
  });
  assert.deepEqual(found, [true, true]);
});

await check("damaged files are refused, with their names", isolated, async (page) => {
  const errorOf = (source, options = {}) =>
    page.evaluate(([source, options]) => errorOf(async () => (await openelm.Model.load(source, options)).close()), [source, options]);
  assert.match(await errorOf("/models/cut.gguf"), /^file: .*cut\.gguf.*beyond the end/);
  assert.match(await errorOf("/models/noise.gguf"), /^file: .*noise\.gguf/);
  assert.match(await errorOf("/models/empty.gguf"), /^file: .*empty\.gguf/);
  // What is kept under its hash is not asked for again, wherever it came from.
  await page.evaluate((sha256) => openelm.Model.forget("/", { sha256 }), sha256);
  assert.match(await errorOf("/models/altered.gguf", { sha256 }), /^file: .*altered\.gguf.*SHA-256/);
  assert.match(await errorOf("/models/altered.gguf", { sha256, store: false }), /^file: .*SHA-256/);
  assert.match(await errorOf("/models/none.gguf"), /^network: .*none\.gguf.*404/);
  assert.match(await errorOf("http://localhost:1/x.gguf"), /^network: .*cannot be reached/);
  assert.match(await errorOf("/models/story-q4_0.gguf", { memory: 5e6 }), /^memory: .*are available/);
  assert.match(await errorOf("/models/story-q4_0.gguf", { cache: "f8" }), /^input: .*f8/);
});

await check("storage that is full or refused", isolated, async (page) => {
  const client = await context.newCDPSession(page);
  const load = (options) =>
    page.evaluate((options) => errorOf(async () => (await openelm.Model.load("/models/story-f32.gguf", options)).close()), options);
  await page.evaluate(() => openelm.Model.forget("/models/story-f32.gguf"));
  await client.send("Storage.overrideQuotaForOrigin", { origin: isolated.address, quotaSize: 4e6 });
  assert.match(await load({}), /^storage: the browser's storage is full/);
  assert.equal(await load({ store: false }), "no error");
  await client.send("Storage.overrideQuotaForOrigin", { origin: isolated.address });
});

await check("storage that is refused", isolated, async (page) => {
  const load = (options) =>
    page.evaluate((options) => errorOf(async () => (await openelm.Model.load("/models/story-q4_0.gguf", options)).close()), options);
  assert.match(await load({}), /^storage: the browser refuses/);
  assert.equal(await load({ store: false }), "no error");
}, "refusing");

await check("the page goes on while a prompt is read, and cancels it at once", isolated, async (page) => {
  const found = await page.evaluate(async (prompt) => {
    const model = await openelm.Model.load("/models/story-f32.gguf", { threads: 1 });
    const session = model.session();
    let turns = 0;
    const timer = setInterval(() => (turns += 1), 1);
    const generation = session.generate(prompt.repeat(9), { maxTokens: 5 });
    const first = generation.next();
    while (turns < 3) await new Promise((resolve) => setTimeout(resolve, 1));
    generation.cancel();
    const { done } = await first;
    clearInterval(timer);
    // The worker looks up soon, and the session is free.
    let text;
    while (text === undefined) text = await session.text().catch((error) => (error.kind === "busy" ? undefined : Promise.reject(error)));
    const more = await session.generate(" Then", { maxTokens: 3, ignoreEnd: true }).text();
    model.close();
    return { done, finish: generation.finish, text, more };
  }, expected.prompt);
  assert.deepEqual([found.done, found.finish], [true, "cancelled"]);
  assert.ok(found.text.startsWith(expected.prompt.slice(0, 40)), found.text.slice(0, 60));
  assert.ok(found.more.length > 0);
});

await check("a session holds what was taken", isolated, async (page) => {
  const found = await page.evaluate(async (prompt) => {
    const model = await openelm.Model.load("/models/story-q4_0.gguf");
    const session = model.session();
    const options = { temperature: 0, maxTokens: 50, ignoreEnd: true };
    let read = 0;
    let text = prompt;
    for await (const piece of session.generate(prompt, options)) {
      read += piece.tokens.length;
      text += piece.text;
      if (read >= 5) break;
    }
    let tokens;
    while (!tokens) tokens = await session.tokens().catch((error) => (error.kind === "busy" ? undefined : Promise.reject(error)));
    const given = await model.encode(prompt);
    const fork = await session.fork();
    const [a, b] = [await session.generate("", options).text(), await fork.generate("", options).text()];
    await fork.truncate(given.length);
    const again = await fork.generate("", { ...options, maxTokens: read }).text();
    const answer = await model.session().chat([{ role: "user", content: "Who are you?" }], { maxTokens: 4 }).text();
    model.close();
    return { kept: tokens.length - given.length, read, same: a === b, again: prompt + again, text, answer: typeof answer };
  }, expected.prompt);
  assert.equal(found.kept, found.read);
  assert.ok(found.same);
  assert.ok(found.again.startsWith(found.text.trimEnd()) || found.text.startsWith(found.again), `${found.again} | ${found.text}`);
  assert.equal(found.answer, "string");
});

await check("bad input, busy sessions, handles that were closed, a worker that is killed", isolated, async (page) => {
  const found = await page.evaluate(async () => {
    const workers = [];
    const { Worker } = globalThis;
    globalThis.Worker = class extends Worker {
      constructor(...values) {
        super(...values);
        workers.push(this);
      }
    };
    const model = await openelm.Model.load("/models/story-q4_0.gguf", { threads: 2 });
    const session = model.session();
    const errors = {};
    errors.long = await errorOf(() => session.generate("word ".repeat(5000)).text());
    errors.temperature = await errorOf(() => session.generate("x", { temperature: -1 }).text());
    errors.option = await errorOf(() => session.generate("x", { temprature: 1 }).text());
    errors.context = await errorOf(() => session.truncate("x"));
    const generation = session.generate("Once upon a time", { ignoreEnd: true });
    await generation.next();
    errors.busy = await errorOf(() => session.generate("x").text());
    errors.fork = await errorOf(() => session.fork());
    generation.cancel();
    session.close();
    errors.session = await errorOf(() => session.generate("x").text());
    const other = model.session();
    const running = other.generate("Once upon a time", { ignoreEnd: true, maxTokens: 400 });
    await running.next();
    workers[0].terminate();
    errors.killed = await errorOf(() => running.text());
    errors.after = await errorOf(() => other.text());
    const second = await openelm.Model.load("/models/story-q4_0.gguf");
    const late = second.session();
    second.close();
    errors.closed = await errorOf(() => late.generate("x").text());
    errors.model = await errorOf(() => second.session());
    const abort = new AbortController();
    const loading = errorOf(() => openelm.Model.load("/models/story-f32.gguf", { signal: abort.signal, refresh: true }));
    abort.abort();
    errors.aborted = await loading;
    return errors;
  });
  assert.match(found.long, /^input: .*tokens/);
  assert.match(found.temperature, /^input: .*temperature/);
  assert.match(found.option, /^input: .*temprature/);
  assert.match(found.busy, /^busy: the session is generating/);
  assert.match(found.fork, /^busy: /);
  assert.equal(found.session, "closed: the session was closed");
  assert.match(found.killed, /^worker: .*ended from outside/);
  assert.match(found.after, /^worker: /);
  assert.equal(found.closed, "closed: the model was closed");
  assert.equal(found.model, "closed: the model was closed");
  assert.match(found.aborted, /^AbortError: /);
});

/** What a colour of the page is as numbers. */
const contrast = (page, selector) =>
  page.evaluate((selector) => {
    const numbers = (color) => color.match(/[\d.]+/g).slice(0, 3).map(Number);
    const light = (color) => {
      const [r, g, b] = numbers(color).map((x) => ((x /= 255) <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4));
      return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    let element = document.querySelector(selector);
    const text = light(getComputedStyle(element).color);
    while (/, 0\)$/.test(getComputedStyle(element).backgroundColor)) element = element.parentElement;
    const page = light(getComputedStyle(element).backgroundColor);
    return (Math.max(text, page) + 0.05) / (Math.min(text, page) + 0.05);
  }, selector);

await check("the demo by keyboard, with names for screen readers, dark and light", isolated, async (page) => {
  copyFileSync(join(models, "storyteller.gguf"), join(roots.web, "demo/storyteller.gguf"));
  await page.goto(`${isolated.address}/web/demo/index.html`);
  await page.waitForFunction(() => /^Ready/.test(document.querySelector("[role=status]").textContent));
  const client = await context.newCDPSession(page);
  const { nodes } = await client.send("Accessibility.getFullAXTree");
  const operated = nodes.filter(({ ignored, role }) => !ignored && /button|textbox|spinbutton|progressbar/i.test(role?.value ?? ""));
  assert.ok(operated.length >= 5);
  for (const { role, name } of operated) assert.ok(name?.value, `a ${role.value} without a name`);
  for (const scheme of ["dark", "light"]) {
    await page.emulateMedia({ colorScheme: scheme });
    for (const selector of ["body", "#status", "textarea", "#write", "#story", "label"]) {
      assert.ok((await contrast(page, selector)) >= 4.5, `${selector} in ${scheme}`);
    }
  }
  // By keyboard alone: from the text over two fields to the button.
  await page.focus("#prompt");
  for (const _ of [1, 2]) await page.keyboard.press("Tab");
  await page.keyboard.press("Tab");
  assert.equal(await page.evaluate(() => document.activeElement.id), "write");
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => document.querySelector("#story").childNodes.length > 3);
  await page.keyboard.press("Escape");
  await page.waitForFunction(() => /^(Stopped|Done)/.test(document.querySelector("[role=status]").textContent));
  await page.focus("#prompt");
  await page.keyboard.press("Control+Enter");
  await page.waitForFunction(() => /^Done/.test(document.querySelector("[role=status]").textContent), undefined, { timeout: 120_000 });
  if (screenshot) await page.screenshot({ path: screenshot, fullPage: true });
});

await check(`memory stays flat over ${rounds} rounds of open, generate, cancel, close`, isolated, async (page) => {
  const some = (count) =>
    page.evaluate(async (count) => {
      for (let round = 0; round < count; round++) {
        const model = await openelm.Model.load("/models/story-q4_0.gguf", { threads: 1 + (round % 2) });
        const generation = model.session().generate("Once upon a time there was", { ignoreEnd: true });
        await generation.next();
        if (round % 3 === 0) await generation.next();
        generation.cancel();
        model.close();
      }
    }, count);
  const sizes = [];
  const parts = 10;
  for (let part = 0; part <= parts; part++) {
    await some(part === 0 ? Math.min(50, Number(rounds)) : Math.ceil(rounds / parts));
    await (await context.newCDPSession(page)).send("HeapProfiler.collectGarbage");
    sizes.push(memoryOfPages(profile) / 2 ** 20);
  }
  console.log(`        MiB in memory: ${sizes.map((size) => size.toFixed(0)).join(" ")}`);
  // Less than 20 KiB a round, of what a model of 3 MiB in a memory of its own would leave.
  const growth = Math.min(...sizes.slice(-3)) - Math.max(...sizes.slice(0, 3));
  assert.ok(growth < 16 + (20 / 1024) * rounds, `it grew by ${growth.toFixed(0)} MiB`);
});

await close();
isolated.close();
plain.close();
console.log(`${passed} passed, ${failed} failed; the modules: ${["openelm", "openelm-relaxed"].map((name) => statSync(join(roots.web, `wasm/${name}_bg.wasm`)).size).join(" and ")} bytes`);
process.exit(failed ? 1 : 0);
