// The worker that a model lives in: it loads, and writes step by step, looking after its messages in between.

import { OpenELMError, sent } from "./errors.js";
import { makeMemory } from "./module.js";
import { fetched, read, stored } from "./store.js";

/** A step of reading a prompt takes about this long, in milliseconds: so long may a cancellation wait for the worker. */
const STEP_MS = 100;
const LEAST_TOKENS = 16;
const MOST_TOKENS = 256;

let wasm;
let bytes;
let model;
const sessions = new Map();
const generations = new Map();

/** Instantiates the first of `modules` that gives the results of all others here, and begins the threads. */
async function start({ modules, threads, lock }) {
  let begun;
  for (const { name, module } of modules) {
    wasm = await import(`./wasm/${name}.js`);
    const { memory, bytes: most } = makeMemory();
    bytes = most;
    await wasm.default({ module_or_path: module, memory });
    if (wasm.roundsOnce()) {
      begun = { name, module, memory };
      break;
    }
  }
  await hold(`${lock}-0`);
  wasm.beginThreads(threads);
  const others = Array.from({ length: threads - 1 }, (_, index) => begin({ ...begun, lock: `${lock}-${index + 1}` }));
  await Promise.all(others);
  return { module: begun.name };
}

/** Holds a lock as long as this worker lives. */
function hold(name) {
  return new Promise((held) => {
    if (!navigator.locks) return held();
    navigator.locks.request(name, () => {
      held();
      return new Promise(() => {});
    });
  });
}

function begin(message) {
  const thread = new Worker(new URL("./thread.js", import.meta.url), { type: "module", name: "openelm-thread" });
  return new Promise((resolve, reject) => {
    thread.onmessage = resolve;
    thread.onerror = (event) => reject(new OpenELMError("defect", `a thread does not begin: ${event.message}`));
    thread.postMessage(message);
  });
}

async function open({ source, name, sha256, store, refresh, cache, context, memory }, progress) {
  const { Contents, Hash } = wasm;
  const tools = { sha256, refresh, Contents, Hash, progress };
  let contents;
  if (typeof source !== "string") contents = await read(source, name, tools);
  else if (store) contents = await read(await stored(source, tools), name, { ...tools, sha256: undefined });
  else contents = await fetched(source, tools);
  progress({ phase: "open" });
  model = wasm.Model.open(contents, name, cache, context, Math.min(memory ?? bytes, bytes));
  const { parameters, weightBytes, vocabulary, threads } = model;
  return { name: model.name, parameters, weightBytes, context: model.context, vocabulary, threads };
}

/** The module's options, from those of the page. */
function optionsOf(given) {
  const options = new wasm.Options();
  for (const [key, value] of Object.entries(given)) {
    if (value === undefined) continue;
    if (!(key in options)) throw new OpenELMError("input", `there is no option ${key}`);
    options[key] = value;
  }
  return options;
}

const calls = {
  start,
  open,
  encode: ({ text }) => model.encode(text),
  session: ({ session }) => void sessions.set(session, model.session()),
  fork: ({ session, fork }) => void sessions.set(fork, sessions.get(session).fork()),
  text: ({ session }) => sessions.get(session).text(),
  tokens: ({ session }) => sessions.get(session).tokens(),
  truncate: ({ session, tokens }) => sessions.get(session).truncate(tokens),
  free: ({ session }) => {
    sessions.get(session)?.free();
    sessions.delete(session);
  },
  generate: ({ session, generation, prompt, messages, options, room }) => {
    const [from, chosen] = [sessions.get(session), optionsOf(options)];
    const roles = messages?.map(({ role }) => String(role));
    const contents = messages?.map(({ content }) => String(content));
    const writer = messages ? from.chat(roles, contents, chosen) : from.generate(prompt, chosen);
    const state = { writer, room, read: 0, isCancelled: false, wake: () => {} };
    generations.set(generation, state);
    write(generation, state);
  },
  // The page has taken a piece, of so many tokens.
  taken: ({ generation, tokens }) => {
    const state = generations.get(generation);
    if (!state) return;
    state.room += 1;
    state.read += tokens;
    state.wake();
  },
  cancel: ({ generation, read }) => {
    const state = generations.get(generation);
    if (!state) return;
    Object.assign(state, { isCancelled: true, read });
    state.wake();
  },
};

/** Lets messages in. */
const { port1, port2 } = new MessageChannel();
const turn = () =>
  new Promise((resolve) => {
    port1.onmessage = resolve;
    port2.postMessage(0);
  });

async function write(generation, state) {
  let most = LEAST_TOKENS;
  let end = {};
  try {
    while (!state.isCancelled) {
      if (state.room === 0) {
        await new Promise((wake) => (state.wake = wake));
        continue;
      }
      const begin = performance.now();
      const step = state.writer.step(most);
      const { text, tokens, finish, waiting } = step;
      step.free();
      if (waiting > 0) {
        const factor = performance.now() - begin < STEP_MS ? 2 : 0.5;
        most = Math.min(MOST_TOKENS, Math.max(LEAST_TOKENS, most * factor));
      } else if (text || tokens.length) {
        state.room -= 1;
        self.postMessage({ generation, piece: { text, tokens: Array.from(tokens) } });
      }
      if (finish) {
        end = { finish };
        break;
      }
      await turn();
    }
    if (state.isCancelled) {
      state.writer.cancel(state.read);
      end = { finish: "cancelled" };
    }
    state.writer.free();
  } catch (error) {
    if (error instanceof WebAssembly.RuntimeError) return fail(error);
    end = { error: sent(error) };
  }
  generations.delete(generation);
  self.postMessage({ generation, end });
}

/** The module has ended: a panic, or no memory. */
function fail(error) {
  const defect = wasm.defect();
  const message = defect
    ? `a defect of openelm, please report it: ${defect}`
    : `the module of openelm ended (${error.message}); there may have been too little memory`;
  self.postMessage({ fatal: { kind: defect ? "defect" : "memory", message } });
}

self.onmessage = async ({ data: { id, call, ...values } }) => {
  try {
    const result = await calls[call](values, (progress) => self.postMessage({ id, progress }));
    if (id !== undefined) self.postMessage({ id, result });
  } catch (error) {
    if (error instanceof WebAssembly.RuntimeError) fail(error);
    else self.postMessage({ id, error: sent(error) });
  }
};
