import { Model } from "../index.js";

const [form, prompt, temperature, tokens, write, stop, status, bar, story, file] = [
  "form", "prompt", "temperature", "tokens", "write", "stop", "status", "progress", "story", "file",
].map((id) => document.getElementById(id));

let model;
let generation;

/** What screen readers read out: states, not every word. */
function say(text, isWrong = false) {
  status.textContent = text;
  status.toggleAttribute("data-wrong", isWrong);
}

function show({ phase, loaded, total }) {
  bar.hidden = false;
  if (total) bar.value = loaded / total;
  else bar.removeAttribute("value");
  if (phase === "open") say("Opening the model …");
}

const million = (count) => `${(count / 1e6).toFixed(1)} million`;

async function load(source) {
  generation?.cancel();
  model?.close();
  model = undefined;
  write.disabled = true;
  say("Loading the model …");
  try {
    model = await Model.load(source, { onProgress: show });
    const threads = model.threads === 1 ? "1 thread" : `${model.threads} threads`;
    say(["Ready", `${million(model.parameters)} parameters`, threads, ...model.notes].join("; ") + ".");
    write.disabled = false;
  } catch (error) {
    say(error.message, true);
  }
  bar.hidden = true;
}

async function tell() {
  const session = model.session();
  const given = document.createElement("span");
  given.className = "given";
  given.textContent = prompt.value;
  story.replaceChildren(given);
  write.disabled = true;
  stop.disabled = false;
  say("Writing …");
  const begin = performance.now();
  let count = 0;
  try {
    generation = session.generate(prompt.value, {
      temperature: Number(temperature.value),
      maxTokens: Number(tokens.value),
      seed: crypto.getRandomValues(new Uint32Array(1))[0],
    });
    for await (const piece of generation) {
      story.append(piece.text);
      count += piece.tokens.length;
    }
    const rate = count / ((performance.now() - begin) / 1000);
    say(`${generation.finish === "cancelled" ? "Stopped" : "Done"}: ${count} tokens, ${rate.toFixed(0)} a second.`);
    session.close();
  } catch (error) {
    say(error.message, true);
  }
  const hadFocus = document.activeElement === stop;
  stop.disabled = true;
  write.disabled = !model;
  if (hadFocus) write.focus();
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (!write.disabled) tell();
});
prompt.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
});
stop.addEventListener("click", () => generation?.cancel());
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") generation?.cancel();
});
file.addEventListener("change", () => file.files[0] && load(file.files[0]));

await load(new URL("storyteller.gguf", import.meta.url));
