// Prints the report of the model in a folder, made by a module of WebAssembly: node run.mjs MODULE FOLDER
import { readFileSync } from "node:fs";
import { join } from "node:path";

const [file, folder] = process.argv.slice(2);
const { instance } = await WebAssembly.instantiate(readFileSync(file), {});
const { memory, room_for_file, make_report, report_start } = instance.exports;
["config.json", "model.safetensors", "tokenizer.model"].forEach((name, index) => {
  const bytes = readFileSync(join(folder, name));
  const start = room_for_file(index, bytes.length);
  new Uint8Array(memory.buffer, start, bytes.length).set(bytes);
});
const length = make_report();
process.stdout.write(new TextDecoder().decode(new Uint8Array(memory.buffer, report_start(), length)));
