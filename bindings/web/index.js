// OpenELM in a page: the handles, and the messages to the worker in which the model lives.

import { OpenELMError, received } from "./errors.js";
import { compile, cores, names } from "./module.js";
import { forget } from "./store.js";

export { OpenELMError };

/** Pieces that may wait to be taken: the worker writes ahead so far, and no further. */
const ROOM = 4;

let last = 0;
const next = () => (last += 1);

/** A worker, and what is expected from it. */
class Host {
  constructor() {
    this.worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module", name: "openelm" });
    this.calls = new Map();
    this.generations = new Map();
    this.end = undefined;
    this.watch = new AbortController();
    this.lock = `openelm-${crypto.randomUUID()}`;
    this.worker.onmessage = ({ data }) => this.receive(data);
    this.worker.onerror = (event) => {
      event.preventDefault();
      this.stop(new OpenELMError("worker", `the worker of openelm failed: ${event.message ?? "it cannot be loaded"}`));
    };
  }

  receive({ id, generation, result, error, progress, piece, end, fatal }) {
    if (fatal) return this.stop(received(fatal));
    if (generation !== undefined) {
      const state = this.generations.get(generation);
      if (piece) state?.give(piece);
      if (end) {
        this.generations.delete(generation);
        state?.finished(end);
      }
      return;
    }
    const call = this.calls.get(id);
    if (!call) return;
    if (progress) return call.progress?.(progress);
    this.calls.delete(id);
    if (error) call.reject(received(error));
    else call.resolve(result);
  }

  /** Throws if the worker is no more. */
  check() {
    if (this.end) throw this.end;
  }

  call(call, values = {}, progress = undefined) {
    return new Promise((resolve, reject) => {
      this.check();
      const id = next();
      this.calls.set(id, { resolve, reject, progress });
      this.worker.postMessage({ id, call, ...values });
    });
  }

  send(call, values) {
    if (!this.end) this.worker.postMessage({ call, ...values });
  }

  /** Notices when a worker ends that nobody asked to. */
  watchOver(threads) {
    for (let thread = 0; thread < threads && navigator.locks; thread++) {
      const options = { signal: this.watch.signal };
      const gone = () => this.stop(new OpenELMError("worker", "a worker of openelm was ended from outside; load the model again"));
      navigator.locks.request(`${this.lock}-${thread}`, options, gone).catch(() => {});
    }
  }

  /** Ends the worker and whatever waits for it. */
  stop(reason) {
    if (this.end) return;
    this.end = reason;
    this.watch.abort();
    // Those that it has begun end with it.
    this.worker.terminate();
    for (const { reject } of this.calls.values()) reject(reason);
    for (const state of this.generations.values()) state.finished({ reason });
    this.calls.clear();
    this.generations.clear();
  }
}

/** A text in the making: an asynchronous iterator over its pieces. */
export class Generation {
  #host;
  #id;
  #ready = [];
  #waiting = [];
  #read = 0;
  #end;

  constructor(host, id) {
    this.#host = host;
    this.#id = id;
    /** Why the text ended: "end", "stop", "length", "context" or "cancelled"; nothing while it goes on. */
    this.finish = undefined;
    host.generations.set(id, { give: (piece) => this.#give(piece), finished: (end) => this.#finished(end) });
  }

  #give(piece) {
    this.#ready.push(piece);
    this.#settle();
  }

  #finished(end) {
    this.#end ??= end;
    this.#settle();
  }

  #settle() {
    while (this.#waiting.length && (this.#ready.length || this.#end)) {
      const { resolve, reject } = this.#waiting.shift();
      const piece = this.#ready.shift();
      if (piece) {
        this.#read += piece.tokens.length;
        this.#host.send("taken", { generation: this.#id, tokens: piece.tokens.length });
        resolve({ done: false, value: piece });
        continue;
      }
      const { finish, error, reason } = this.#end;
      this.finish = finish;
      // An error comes once.
      this.#end = { finish };
      if (error || reason) reject(reason ?? received(error));
      else resolve({ done: true, value: undefined });
    }
  }

  next() {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ resolve, reject });
      this.#settle();
    });
  }

  /** Ends the text at once: who waits for a piece gets none. The session holds the prompt and the pieces that were taken. */
  cancel() {
    if (this.#end) return;
    this.#host.send("cancel", { generation: this.#id, read: this.#read });
    this.#ready = [];
    this.finish = "cancelled";
    this.#finished({ finish: "cancelled" });
  }

  async return() {
    this.cancel();
    return { done: true, value: undefined };
  }

  [Symbol.asyncIterator]() {
    return this;
  }

  /** All the text that is left. */
  async text() {
    let text = "";
    for await (const piece of this) text += piece.text;
    return text;
  }
}

/** A conversation with a model: it remembers what it has read and written, and goes on from there. */
export class Session {
  #host;
  #id = next();
  #isFree = false;

  constructor(host) {
    this.#host = host;
  }

  static begun(host) {
    const session = new Session(host);
    host.check();
    host.send("session", { session: session.#id });
    return session;
  }

  #begin(values, { signal, ...options }) {
    this.#check();
    signal?.throwIfAborted();
    const generation = new Generation(this.#host, next());
    const id = last;
    const begun = this.#host.call("generate", { session: this.#id, generation: id, options, room: ROOM, ...values });
    begun.catch((error) => {
      const state = this.#host.generations.get(id);
      this.#host.generations.delete(id);
      state?.finished({ reason: error });
    });
    signal?.addEventListener("abort", () => generation.cancel(), { once: true });
    return generation;
  }

  #check() {
    this.#host.check();
    if (this.#isFree) throw new OpenELMError("closed", "the session was closed");
  }

  async #ask(call, values = {}) {
    this.#check();
    return this.#host.call(call, { session: this.#id, ...values });
  }

  /** Reads `prompt` and writes on behind it. */
  generate(prompt, options = {}) {
    return this.#begin({ prompt: String(prompt) }, options);
  }

  /** Answers the last of `messages`, a conversation from its beginning. */
  chat(messages, options = {}) {
    return this.#begin({ messages }, options);
  }

  /** The text so far. */
  text() {
    return this.#ask("text");
  }

  /** The ids of the tokens so far. */
  async tokens() {
    return Array.from(await this.#ask("tokens"));
  }

  /** Forgets all tokens from position `tokens` on. */
  truncate(tokens) {
    return this.#ask("truncate", { tokens });
  }

  /** Another session that begins with the same text; what was computed of it is shared. */
  async fork() {
    const fork = new Session(this.#host);
    await this.#ask("fork", { fork: fork.#id });
    return fork;
  }

  /** Gives its memory back to the model. */
  close() {
    if (!this.#isFree) this.#host.send("free", { session: this.#id });
    this.#isFree = true;
  }
}

/** A model in a worker of its own. */
export class Model {
  #host;

  constructor(host, description, notes) {
    this.#host = host;
    Object.assign(this, description);
    /** What is odd about how it runs, in sentences. */
    this.notes = notes;
  }

  /** Loads the `.gguf` file at an address, or the `File` or `Blob` that it is. */
  static async load(source, options = {}) {
    const { threads: wanted, cache = "f32", context, memory, sha256, store = true, refresh = false, relaxed = true, onProgress, signal } = options;
    signal?.throwIfAborted();
    const isAddress = typeof source === "string" || source instanceof URL;
    const notes = [];
    const isIsolated = globalThis.crossOriginIsolated === true;
    if (!isIsolated) notes.push("one thread computes, because the page is not cross-origin isolated");
    const threads = isIsolated ? Math.max(1, wanted || cores()) : 1;
    const host = new Host();
    const abort = () => host.stop(signal.reason);
    signal?.addEventListener("abort", abort, { once: true });
    try {
      const modules = await Promise.all(names(relaxed).map(async (name) => ({ name, module: await compile(name) })));
      host.check();
      const { module } = await host.call("start", { modules, threads, lock: host.lock });
      host.watchOver(threads);
      const values = {
        source: isAddress ? new URL(source, document.baseURI).href : source,
        name: isAddress ? String(source) : (source.name ?? "the model"),
        cache, context, memory, store, refresh,
        sha256: sha256?.toLowerCase(),
      };
      const description = await host.call("open", values, onProgress);
      return new Model(host, { ...description, module }, notes);
    } catch (error) {
      host.stop(error);
      throw host.end;
    } finally {
      signal?.removeEventListener("abort", abort);
    }
  }

  /** Removes the file of an address, or of a hash, from the browser's storage; says whether it was there. */
  static forget(source, { sha256 } = {}) {
    return forget(new URL(source, document.baseURI).href, sha256?.toLowerCase());
  }

  /** An empty session. */
  session() {
    return Session.begun(this.#host);
  }

  /** The ids of a text, as a prompt begins with it. */
  async encode(text) {
    return Array.from(await this.#host.call("encode", { text: String(text) }));
  }

  /** Ends the worker and gives all memory back. */
  close() {
    this.#host.stop(new OpenELMError("closed", "the model was closed"));
  }
}
