// Which module runs on this machine, with how many threads and how much memory.

// A function with an instruction of relaxed SIMD.
const RELAXED = [
  0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 15, 1, 13, 0, 65, 1, 253, 15, 65, 2, 253, 15, 253, 128, 2, 11,
];

/** Pages of 64 KiB that a memory begins with: those of the module itself. */
const INITIAL = 128;
/** Most pages; where the system does not give so many addresses, half of them, or a quarter. */
const MAXIMA = [65536, 32768, 16384];

const compiled = new Map();

/** The names of the modules to try, the fastest first. */
export function names(relaxed) {
  return relaxed && WebAssembly.validate(new Uint8Array(RELAXED)) ? ["openelm-relaxed", "openelm"] : ["openelm"];
}

/** The module of that name, compiled once in a page. */
export function compile(name) {
  if (!compiled.has(name)) {
    const module = load(new URL(`./wasm/${name}_bg.wasm`, import.meta.url));
    // What failed may succeed later.
    module.catch(() => compiled.delete(name));
    compiled.set(name, module);
  }
  return compiled.get(name);
}

async function load(url) {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${url}: the server answers ${response.status}`);
  // Some servers do not know the type that streaming asks for.
  return WebAssembly.compile(await response.arrayBuffer());
}

/** A memory that workers can share. */
export function makeMemory() {
  for (const maximum of MAXIMA) {
    try {
      return { memory: new WebAssembly.Memory({ initial: INITIAL, maximum, shared: true }), bytes: maximum * 65536 };
    } catch (error) {
      if (maximum === MAXIMA.at(-1)) throw error;
    }
  }
}

/**
 * As many threads as there are physical cores, as far as can be told: browsers count what runs at once, which on processors
 * of Intel and AMD is mostly two a core. Of two, both are taken.
 */
export function cores({ hardwareConcurrency: count = 1, userAgent = "", platform = "" } = navigator) {
  const isArm = /iPhone|iPad|Android|aarch64|arm/i.test(userAgent + platform) || /^Mac/.test(platform);
  return isArm || count <= 2 ? count : Math.ceil(count / 2);
}
