// Files of models in the browser's private file system, so that they are fetched once.

import { OpenELMError } from "./errors.js";

const FOLDER = "openelm";

async function folder() {
  try {
    const root = await navigator.storage.getDirectory();
    return await root.getDirectoryHandle(FOLDER, { create: true });
  } catch (error) {
    throw storageError(error);
  }
}

function storageError(error) {
  const way = "load the model with { store: false } to keep it in memory alone";
  const sentence =
    error.name === "QuotaExceededError"
      ? `the browser's storage is full: free some, or ${way}`
      : `the browser refuses to store the model (${error.message}): ${way}`;
  return new OpenELMError("storage", sentence);
}

/** The name of a file in the store: its hash where it is known, or one of its address. */
async function nameOf(url, sha256) {
  if (sha256) return sha256;
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(url));
  return `url-${Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, "0")).join("")}`;
}

/** Removes the file of `url`, or of the hash, from the store; says whether it was there. */
export async function forget(url, sha256) {
  const [files, name] = [await folder(), await nameOf(url, sha256)];
  let found = false;
  for (const entry of [name, `${name}.part`]) {
    await files.removeEntry(entry).then(
      () => (found = true),
      (error) => {
        if (error.name !== "NotFoundError") throw storageError(error);
      },
    );
  }
  return found;
}

/** The answer of a server, from byte `from` on if it can. */
async function request(url, from) {
  let response;
  try {
    response = await fetch(url, from ? { headers: { Range: `bytes=${from}-` } } : {});
  } catch (error) {
    throw new OpenELMError("network", `${url}: the server cannot be reached (${error.message})`);
  }
  if (response.ok) return response;
  await response.body?.cancel();
  if (from && response.status === 416) return request(url, 0);
  throw new OpenELMError("network", `${url}: the server answers ${response.status}`);
}

/**
 * Fetches `url` chunk by chunk. `begin(from, total)` is called once the server has answered, `take(chunk)` for each chunk.
 */
async function download(url, from, begin, take, progress) {
  const response = await request(url, from);
  let loaded = response.status === 206 ? from : 0;
  const length = Number(response.headers.get("Content-Length"));
  // A length of compressed bytes says nothing about those that come out.
  const total = length && !response.headers.get("Content-Encoding") ? loaded + length : undefined;
  await begin(loaded, total);
  const reader = response.body.getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read().catch((error) => {
        throw new OpenELMError("network", `${url}: the connection ended after ${loaded} bytes (${error.message})`);
      });
      if (done) break;
      take(value);
      loaded += value.length;
      progress({ phase: "download", loaded, total });
    }
  } finally {
    await reader.cancel().catch(() => {});
  }
  if (total !== undefined && loaded !== total) {
    throw new OpenELMError("network", `${url}: only ${loaded} of ${total} bytes came`);
  }
}

function check(name, found, wanted) {
  if (wanted && found !== wanted) {
    throw new OpenELMError("file", `${name}: its SHA-256 is ${found}, not ${wanted}; it is damaged or another file`);
  }
}

/** The file at `url`, from the store or else fetched into it: a `File`. */
export async function stored(url, { sha256, refresh, Hash, progress }) {
  const [files, name] = [await folder(), await nameOf(url, sha256)];
  return navigator.locks.request(`openelm-store-${name}`, async () => {
    if (refresh) await forget(url, sha256);
    const known = await files.getFileHandle(name).catch(() => undefined);
    if (known) return known.getFile();
    try {
      return await fetchInto(files, name, url, { sha256, Hash, progress });
    } catch (error) {
      throw error instanceof OpenELMError ? error : storageError(error);
    }
  });
}

/** Goes on with what an earlier attempt left, where the hash will tell whether it belongs together. */
async function fetchInto(files, name, url, { sha256, Hash, progress }) {
  const part = await files.getFileHandle(`${name}.part`, { create: true });
  const file = await part.createSyncAccessHandle();
  let hash = new Hash();
  let end = 0;
  try {
    const begin = (from) => {
      file.truncate(from);
      const buffer = new Uint8Array(1 << 20);
      for (end = 0; end < from; ) {
        const read = file.read(buffer, { at: end });
        if (read === 0) throw new Error("a file in the store became shorter");
        hash.update(buffer.subarray(0, read));
        end += read;
      }
    };
    const take = (chunk) => {
      hash.update(chunk);
      if (file.write(chunk, { at: end }) < chunk.length) {
        throw Object.assign(new Error("the storage is full"), { name: "QuotaExceededError" });
      }
      end += chunk.length;
    };
    await download(url, sha256 ? file.getSize() : 0, begin, take, progress);
    file.flush();
  } finally {
    file.close();
  }
  const found = hash.finish();
  hash = undefined;
  try {
    check(url, found, sha256);
  } catch (error) {
    await files.removeEntry(`${name}.part`);
    throw error;
  }
  await part.move(name);
  return (await files.getFileHandle(name)).getFile();
}

/** The bytes at `url` as the module's `Contents`, without storing them. */
export async function fetched(url, { sha256, Hash, Contents, progress }) {
  const hash = new Hash();
  let contents;
  let chunks = [];
  const begin = (_from, total) => {
    if (total !== undefined) contents = new Contents(total, url);
  };
  const take = (chunk) => {
    hash.update(chunk);
    if (contents) contents.append(chunk);
    else chunks.push(chunk);
  };
  await download(url, 0, begin, take, progress);
  check(url, hash.finish(), sha256);
  if (!contents) {
    contents = new Contents(chunks.reduce((sum, chunk) => sum + chunk.length, 0), url);
    chunks.forEach((chunk) => contents.append(chunk));
  }
  return contents;
}

/** The bytes of a `File` or `Blob` as the module's `Contents`. The hash of what lies in the store was checked when it came. */
export async function read(file, name, { sha256, Hash, Contents, progress }) {
  const contents = new Contents(file.size, name);
  const hash = sha256 && new Hash();
  const CHUNK = 4 << 20;
  for (let at = 0; at < file.size; at += CHUNK) {
    let chunk;
    try {
      chunk = new Uint8Array(await file.slice(at, at + CHUNK).arrayBuffer());
    } catch (error) {
      throw new OpenELMError("file", `${name}: it cannot be read (${error.message})`);
    }
    hash?.update(chunk);
    contents.append(chunk);
    progress({ phase: "read", loaded: Math.min(at + CHUNK, file.size), total: file.size });
  }
  if (hash) check(name, hash.finish(), sha256);
  return contents;
}
