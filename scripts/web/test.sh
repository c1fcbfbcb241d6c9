#!/usr/bin/env bash
# Tries the npm package in headless Chromium: the greedy tokens must be those of the command, every error a sentence, and memory flat
# over many rounds of opening, generating, cancelling and closing. Builds the modules first (build.sh). Installs Chromium with
# apt-get and playwright-core with npm where they are missing; where they cannot be, says so and ends with 3.
#
#   scripts/web/test.sh [ROUNDS [SCREENSHOT]]
#
# OPENELM is the command to compare with; by default it is built.
set -euo pipefail
cd "$(dirname "$0")/../.."
rounds=${1:-1000} screenshot=${2:-}
work=$(realpath -m "${CARGO_TARGET_DIR:-target}")/web-test
mkdir -p "$work/models"
skip() { echo "skipped: $*" >&2; exit 3; }

command -v node >/dev/null || skip "there is no Node.js"
[ -x /usr/bin/chromium ] || apt-get install -qy --no-install-recommends chromium >&2 || true
[ -x /usr/bin/chromium ] || skip "chromium is missing and cannot be installed"
[ -d "$work/node_modules/playwright-core" ] ||
  (cd "$work" && npm install --silent --no-audit --no-fund playwright-core@1) || skip "playwright-core cannot be installed"
status=0
scripts/web/build.sh || status=$?
[ $status != 3 ] || skip "the modules cannot be built"
[ $status = 0 ] || exit $status

for name in openelm openelm-relaxed; do
  size=$(gzip -9c "bindings/web/wasm/${name}_bg.wasm" | wc -c)
  [ "$size" -lt 2000000 ] || { echo "$name has $size bytes with gzip, more than 2 MB" >&2; exit 1; }
done

openelm() { if [ -n "${OPENELM:-}" ]; then "$OPENELM" "$@"; else cargo run --locked --release --quiet -- "$@"; fi; }
prompt="Once upon a time there was a little girl who wanted to build a boat. She asked her father for wood"
for quant in f32 q8_0 q6_k q4_0; do
  file=$work/models/story-$quant.gguf
  openelm convert builtin "$file.new" --to gguf --quant $quant --no-compare >/dev/null
  mv "$file.new" "$file"
  openelm generate "$prompt" --model "$file" --greedy --ignore-eos -n 60 --json >"$work/$quant.json"
done
node -e '
  const [prompt, folder, ...quants] = process.argv.slice(1);
  const read = (quant) => JSON.parse(require("fs").readFileSync(`${folder}/${quant}.json`)).ids;
  console.log(JSON.stringify({ prompt, ids: Object.fromEntries(quants.map((q) => [`story-${q}.gguf`, read(q)])) }));
' "$prompt" "$work" f32 q8_0 q6_k q4_0 >"$work/expected.json"

node scripts/web/checks.mjs "$work/models" "$work/expected.json" "$work" "$rounds" $screenshot
