// A server for tests: the package at /web/, models at /models/, a peer at /peer/; and servers and storages as they can fail.

import { createReadStream } from "node:fs";
import { readFile, stat } from "node:fs/promises";
import { createServer } from "node:http";
import { extname, join, normalize } from "node:path";

const TYPES = {
  ".html": "text/html; charset=utf-8",
  ".css": "text/css",
  ".js": "text/javascript",
  ".mjs": "text/javascript",
  ".wasm": "application/wasm",
};

const REFUSED = 'navigator.storage.getDirectory = () => Promise.reject(new DOMException("not in this window", "SecurityError"));\n';

/**
 * Serves the folders `roots`, by their first name in a path, to pages that are cross-origin isolated or not. Gives the address,
 * the list of what was asked for, and a function that ends it.
 */
export async function serve(roots, isIsolated) {
  const requests = [];
  const answer = async (request, response) => {
    const path = normalize(decodeURIComponent(new URL(request.url, "http://localhost").pathname));
    requests.push({ path, range: request.headers.range });
    if (isIsolated) {
      response.setHeader("Cross-Origin-Opener-Policy", "same-origin");
      response.setHeader("Cross-Origin-Embedder-Policy", "require-corp");
    }
    let [, first, ...rest] = path.split("/");
    if (path === "/") return response.setHeader("Content-Type", TYPES[".html"]).end("<!doctype html><title>test</title>");
    if (path === "/favicon.ico") return response.writeHead(204).end();
    // In this folder the browser refuses storage; in that one connections break.
    const refuses = first === "refusing" && rest.at(-1) === "worker.js";
    if (first === "refusing") first = "web";
    const breaks = first === "breaking" && !request.headers.range;
    if (first === "breaking") first = "models";
    const file = roots[first] && join(roots[first], ...rest);
    const found = file && (await stat(file).catch(() => undefined));
    if (!found?.isFile()) return response.writeHead(404).end();
    response.setHeader("Content-Type", TYPES[extname(file)] ?? "application/octet-stream");
    if (refuses) return response.end(REFUSED + (await readFile(file, "utf8")));
    const [, from] = /^bytes=(\d+)-$/.exec(request.headers.range ?? "") ?? [];
    const start = Number(from ?? 0);
    if (from) response.writeHead(206, { "Content-Range": `bytes ${start}-${found.size - 1}/${found.size}` });
    else response.setHeader("Content-Length", found.size);
    if (!breaks) return createReadStream(file, { start }).pipe(response);
    const half = (await readFile(file)).subarray(0, found.size >> 1);
    response.write(half, () => setTimeout(() => response.destroy(), 100));
  };
  const server = createServer((request, response) => {
    answer(request, response).catch((error) => response.writeHead(500).end(String(error)));
  });
  await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
  return { address: `http://localhost:${server.address().port}`, requests, close: () => server.close() };
}
