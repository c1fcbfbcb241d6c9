// Rates in headless Chromium, this package and @wllama/wllama in turns, on the same files:
// node bench.mjs MODULES THREADS ROUNDS PROMPT_TOKENS TOKENS FILE.gguf...
//
// Of a round, the time to the first token counts for the prompt, the time from there to the last one for decoding; of the rounds
// the medians. Each engine opens its model once a round, and has read another prompt before.

import { basename, dirname, join, resolve } from "node:path";

import { launch } from "./browser.mjs";
import { serve } from "./serve.mjs";

const [modules, threads, rounds, prompt, tokens, ...files] = process.argv.slice(2);
const root = resolve(import.meta.dirname, "../..");
const peer = join(resolve(modules), "node_modules/@wllama/wllama/esm");

/** What runs in the page: a text of about `prompt` tokens. */
async function textOf({ file, prompt }) {
  const { Model } = await import("/web/index.js");
  const model = await Model.load(file);
  const text = (count) => "The old man went down to the river and looked at the water for a long time. ".repeat(count);
  const [some, more] = [(await model.encode(text(8))).length, (await model.encode(text(9))).length];
  model.close();
  return text(Math.max(1, Math.round(prompt / (more - some))));
}

/** The same: opens `file`, reads `text` and writes `tokens`. */
const engines = {
  openelm: async ({ file, threads, text, tokens }) => {
    const { Model } = await import("/web/index.js");
    const model = await Model.load(file, { threads });
    const run = async (text, maxTokens) => {
      const session = model.session();
      const marks = [performance.now()];
      let count = 0;
      for await (const piece of session.generate(text, { temperature: 0, maxTokens, ignoreEnd: true })) {
        marks.push(performance.now());
        count += piece.tokens.length;
      }
      session.close();
      return { marks, count };
    };
    const length = (await model.encode(text)).length;
    await run("It was. " + text.slice(0, text.length >> 2), 2);
    const { marks, count } = await run(text, tokens);
    model.close();
    return rates(marks, length, count);
  },
  wllama: async ({ file, threads, text, tokens }) => {
    const { Wllama } = await import("/peer/index.js");
    const wllama = new Wllama({ default: new URL("/peer/wasm/wllama.wasm", location).href }, { suppressNativeLog: true });
    const blob = await (await fetch(file)).blob();
    await wllama.loadModel([blob], { n_threads: threads, n_ctx: 2048, n_batch: 512, n_gpu_layers: 0 });
    if (wllama.getNumThreads() !== threads) throw new Error(`wllama runs on ${wllama.getNumThreads()} threads`);
    const run = async (text, max_tokens) => {
      const marks = [performance.now()];
      let timings;
      const options = { prompt: text, max_tokens, temperature: 0, ignore_eos: true, cache_prompt: false, timings_per_token: true };
      for await (const chunk of await wllama.createCompletion({ ...options, stream: true })) {
        marks.push(performance.now());
        timings = chunk.timings ?? timings;
      }
      return { marks, timings };
    };
    await run("It was. " + text.slice(0, text.length >> 2), 2);
    const { marks, timings } = await run(text, tokens);
    await wllama.exit();
    return { ...rates(marks, timings.prompt_n, timings.predicted_n), timings };
  },
};

const median = (numbers) => numbers.toSorted((a, b) => a - b)[numbers.length >> 1];

const server = await serve({ web: join(root, "bindings/web"), models: dirname(resolve(files[0])), peer }, true);
const { context, close } = await launch(modules);
for (const path of files) {
  const found = Object.fromEntries(Object.keys(engines).map((name) => [name, []]));
  let text;
  for (let round = 0; round < Number(rounds); round++) {
    for (const [name, engine] of Object.entries(engines)) {
      const page = await context.newPage();
      page.on("pageerror", (error) => console.error(`${name}: ${error.message}`));
      await page.goto(server.address);
      await page.evaluate(() => {
        globalThis.rates = (marks, read, written) => ({
          prefill: read / ((marks[1] - marks[0]) / 1000),
          decode: (written - 1) / ((marks.at(-1) - marks[1]) / 1000),
          read,
          written,
        });
      });
      const values = { file: `/models/${basename(path)}`, threads: Number(threads), prompt: Number(prompt), tokens: Number(tokens) };
      text ??= await page.evaluate(textOf, values);
      try {
        found[name].push(await page.evaluate(engine, { ...values, text }));
        console.error(basename(path), round, name, JSON.stringify(found[name].at(-1)));
      } catch (error) {
        console.error(`${name}: ${error.message}`);
      }
      await page.close();
    }
  }
  const of = (name, rate) => median(found[name].map((round) => round[rate]));
  for (const rate of ["prefill", "decode"]) {
    const [ours, theirs] = [of("openelm", rate), of("wllama", rate)];
    console.log(
      `${basename(path)}, ${threads} threads, ${rate}: ${ours?.toFixed(1)} tokens/s, wllama ${theirs?.toFixed(1)}, ratio ${(ours / theirs).toFixed(2)}`,
    );
  }
}
await close();
server.close();
