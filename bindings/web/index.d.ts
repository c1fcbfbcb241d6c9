/** What went wrong: one sentence for a person in `message`, and a kind for a program. */
export class OpenELMError extends Error {
  readonly name: "OpenELMError";
  /**
   * - `file`: a model that is damaged, of a kind that cannot be read, or not the one that the hash is of
   * - `memory`: too little memory
   * - `storage`: the browser's storage is full or refused
   * - `network`: a server that cannot be reached, or breaks off
   * - `input`: a prompt, an id or an option that does not suit the model
   * - `busy`: the session is generating
   * - `closed`: the handle was closed
   * - `worker`: a worker was ended from outside, or could not begin
   * - `defect`: a defect of openelm
   */
  readonly kind: "file" | "memory" | "storage" | "network" | "input" | "busy" | "closed" | "worker" | "defect";
}

export interface Progress {
  /** What is going on: fetching, reading into memory, or putting the weights in order. */
  phase: "download" | "read" | "open";
  /** Bytes so far. */
  loaded?: number;
  /** Bytes in all, where they are known. */
  total?: number;
}

export interface LoadOptions {
  /** Threads that compute; 0, the default, is one per physical core, as far as the browser says. */
  threads?: number;
  /** How keys and values are stored: exactly, in half of the memory, or in a quarter. Default `f32`. */
  cache?: "f32" | "f16" | "int8";
  /** Most tokens of a session; the default is what the model was trained for. */
  context?: number;
  /** Bytes that the model and one session may take; the default is what the browser lets a page address. */
  memory?: number;
  /** The SHA-256 of the file, in hexadecimal digits: anything else is refused. A broken download then goes on where it ended. */
  sha256?: string;
  /** Whether what is fetched is kept in the browser's private file system. Default `true`. */
  store?: boolean;
  /** Fetch again what is stored. */
  refresh?: boolean;
  /** Whether relaxed SIMD may be used where it is there: faster, to the same bits. Default `true`. */
  relaxed?: boolean;
  onProgress?(progress: Progress): void;
  /** Ends the loading, and everything that it began. */
  signal?: AbortSignal;
}

export interface GenerationOptions {
  /** Most tokens to generate. Default 200. */
  maxTokens?: number;
  /** Flattens (above 1) or sharpens (below 1) the distribution; at 0 the most probable token is taken. Default 0.8. */
  temperature?: number;
  /** Draw among this many most probable tokens; 0, the default, is all. */
  topK?: number;
  /** Draw among the fewest most probable tokens that reach this probability. Default 0.95. */
  topP?: number;
  /** Draw among tokens at least this probable relative to the most probable one; 0, the default, is all. */
  minP?: number;
  /** Makes tokens that were there before less probable; 1, the default, is off. */
  repetitionPenalty?: number;
  /** No sequence of this many tokens comes twice; 0, the default, is off. */
  noRepeatNgram?: number;
  /** The same seed gives the same text. Default 0. */
  seed?: number;
  /** Texts that end the generation; they are not part of it. */
  stop?: string[];
  /** Go on behind the token that ends a text. */
  ignoreEnd?: boolean;
  /** Cancels. */
  signal?: AbortSignal;
}

export interface Message {
  role: "system" | "user" | "assistant";
  content: string;
}

export interface Piece {
  /** Whole characters. Only the last piece may be empty. */
  text: string;
  /** The ids of the tokens drawn since the piece before; the text of the last ones may come with the next piece. */
  tokens: number[];
}

/** A text in the making. Leaving a `for await` loop cancels it. */
export class Generation implements AsyncIterableIterator<Piece> {
  private constructor();
  /** Why the text ended; nothing while it goes on. */
  readonly finish: "end" | "stop" | "length" | "context" | "cancelled" | undefined;
  next(): Promise<IteratorResult<Piece>>;
  return(): Promise<IteratorResult<Piece>>;
  /** Ends the text at once: who waits for a piece gets none. The session holds the prompt and the pieces that were taken. */
  cancel(): void;
  /** All the text that is left. */
  text(): Promise<string>;
  [Symbol.asyncIterator](): this;
}

/** A conversation with a model: it remembers what it has read and written, and goes on from there. */
export class Session {
  private constructor();
  /** Reads `prompt` and writes on behind it. The session is busy until the text has ended or was cancelled. */
  generate(prompt: string, options?: GenerationOptions): Generation;
  /** Answers the last of `messages`, a conversation from its beginning; what the session holds of it is not read again. */
  chat(messages: Message[], options?: GenerationOptions): Generation;
  /** The text so far. */
  text(): Promise<string>;
  /** The ids of the tokens so far. */
  tokens(): Promise<number[]>;
  /** Forgets all tokens from position `tokens` on. */
  truncate(tokens: number): Promise<void>;
  /** Another session that begins with the same text; what was computed of it is shared. */
  fork(): Promise<Session>;
  /** Gives its memory back to the model. */
  close(): void;
}

/** A model in a worker of its own. */
export class Model {
  private constructor();
  /** Loads the `.gguf` file at an address, or the `File` or `Blob` that it is. */
  static load(source: string | URL | Blob, options?: LoadOptions): Promise<Model>;
  /** Removes the file of an address, or of a hash, from the browser's storage; says whether it was there. */
  static forget(source: string | URL, options?: { sha256?: string }): Promise<boolean>;
  /** The name of the released model that has this geometry. */
  readonly name: string | undefined;
  readonly parameters: number;
  readonly weightBytes: number;
  /** Most tokens of a session. */
  readonly context: number;
  readonly vocabulary: number;
  /** Threads that compute. */
  readonly threads: number;
  /** The module that runs: with relaxed SIMD or without. */
  readonly module: "openelm-relaxed" | "openelm";
  /** What is odd about how it runs, in sentences. */
  readonly notes: string[];
  /** An empty session. */
  session(): Session;
  /** The ids of a text, as a prompt begins with it. */
  encode(text: string): Promise<number[]>;
  /** Ends the worker and gives all memory back. */
  close(): void;
}
