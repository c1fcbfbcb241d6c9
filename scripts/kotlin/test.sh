#!/usr/bin/env bash
# Generates the Kotlin, compiles it with the package's own and runs it on the JVM: the greedy text must be that of the command, and
# memory must stay flat over many rounds. Needs a JDK from 17 on, and npm for the Kotlin compiler; installs JNA with apt-get where
# it is missing.
#
#   scripts/kotlin/test.sh [LIBRARY with UniFFI's metadata [ROUNDS]]
set -euo pipefail
cd "$(dirname "$0")/../.."
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
work=$target/kotlin model=$PWD/models/storyteller rounds=${2:-1000}
library=${1:-}
if [ -z "$library" ]; then
  cargo rustc --locked --release -p openelm-ffi --features uniffi --crate-type cdylib
  library=$target/release/libopenelm_ffi.so
fi
jna=/usr/share/java/jna.jar
[ -e "$jna" ] || apt-get install -qy --no-install-recommends libjna-java >&2
mkdir -p "$work"
[ -d "$work/node_modules/kotlin-compiler" ] ||
  (cd "$work" && npm install --silent --no-audit --no-fund kotlin-compiler@2.4)
compiler=$(find "$work/node_modules/kotlin-compiler" -name kotlin-compiler.jar | head -1)
lib=$(dirname "$compiler")
coroutines=$(find "$lib" -name 'kotlinx-coroutines-core*.jar' | head -1)
scripts/bindgen.sh kotlin "$library" "$work/generated"
classpath=$jna:$coroutines:$lib/kotlin-stdlib.jar
java -Xmx1500m -cp "$lib/*" org.jetbrains.kotlin.cli.jvm.K2JVMCompiler -no-stdlib -no-reflect -nowarn -jvm-target 17 \
  -classpath "$classpath" -d "$work/classes" \
  "$work/generated" bindings/kotlin/src/main/kotlin bindings/kotlin/src/test/kotlin
# The command ends its text with a line break of its own.
cargo run --locked --release --quiet -- generate "Once upon a time" --model "$model" --greedy -n 40 2>/dev/null |
  python3 -c 'import sys; sys.stdout.write(sys.stdin.read().removeprefix("Once upon a time")[:-1])' >"$work/expected.txt"
# A heap that is whole from the beginning, so that what grows is not Java's.
java -Xms64m -Xmx64m -XX:+AlwaysPreTouch -Djna.library.path="$(dirname "$library")" -cp "$work/classes:$classpath" \
  ChecksKt "$model" "$work/expected.txt" "$rounds"
