#!/usr/bin/env bash
# Runs the checks of every language, each by its own script, one after the other. A failure does not stop the others; what this
# machine lacks is said, and the language passed over. Ends with a table, and with 1 if one failed.
#
#   scripts/languages.sh [LANGUAGE...]     of c python kotlin ios web wasm arm
set -uo pipefail
cd "$(dirname "$0")/.."
all=(c python kotlin ios web wasm arm)
[ $# -gt 0 ] || set -- "${all[@]}"
logs=$(realpath -m "${CARGO_TARGET_DIR:-target}")/languages
mkdir -p "$logs"

# commands NAME...: says which of them are not here.
commands() {
  local name missing=()
  for name in "$@"; do command -v "$name" >/dev/null || missing+=("$name"); done
  [ ${#missing[@]} = 0 ] || echo "missing: ${missing[*]}"
}

# standard_library TARGET: says so if neither rustup nor Debian has it.
standard_library() {
  [ -d "$(rustc --print sysroot)/lib/rustlib/$1/lib" ] || (. scripts/later-rustc.sh) >/dev/null 2>&1 ||
    echo "no standard library: rustup target add $1"
}

# lacks LANGUAGE: says what is needed and not here.
lacks() {
  case $1 in
  c) commands cargo "${CC:-cc}" ;;
  python) commands cargo python3 ;;
  kotlin) commands cargo java npm python3 ;;
  ios) commands cargo python3 && standard_library aarch64-apple-ios ;;
  web) commands cargo node npm ;;
  wasm) commands cargo ;;
  arm) commands cargo qemu-aarch64 aarch64-linux-gnu-gcc && standard_library aarch64-unknown-linux-gnu ;;
  esac
}

failed=0 table=$(printf '%-8s %-8s %7s' language result seconds)
for language in "$@"; do
  [[ " ${all[*]} " = *" $language "* ]] || { echo "error: there is no $language; there are ${all[*]}" >&2; exit 2; }
  log=$logs/$language.log seconds=$SECONDS
  echo "== $language"
  note=$(lacks "$language" | paste -sd ';')
  if [ -n "$note" ]; then
    result=skipped
    echo "skipped: $note"
  else
    "scripts/$language/test.sh" 2>&1 | tee "$log"
    case ${PIPESTATUS[0]} in
    0) result=passed ;;
    # What a script finds missing only on its way.
    3) result=skipped ;;
    *) result=failed failed=1 ;;
    esac
    note=$(sed -n 's/^skipped: //p' "$log" | paste -sd ';')
    [ $result != failed ] || note=$log
  fi
  table+=$(printf '\n%-8s %-8s %7d  %s' "$language" $result $((SECONDS - seconds)) "$note")
done
printf '\n%s\n' "$table"
exit $failed
