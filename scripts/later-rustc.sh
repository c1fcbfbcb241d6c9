# To be sourced, in the project's folder, by scripts that compile for a target whose standard library rustup does not have here: gets
# Debian's compiler for the web, which brings the source of its standard library along (rustc-web and rust-web-src; from Debian 12
# on its archive of security updates has them as late as the project asks for), and sets RUSTC and RUSTC_BOOTSTRAP for -Zbuild-std.
needed=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
debian_rustc() { /usr/bin/rustc --version 2>/dev/null | sed 's/^rustc \([0-9.]*\).*/\1/'; }
late_enough() { [ "$(printf '%s\n' "$needed" "$(debian_rustc)" | sort -V | head -1)" = "$needed" ]; }
if ! late_enough || ! [ -d /usr/lib/rustlib/src/rust/library ]; then
  apt-get update -q >&2
  apt-get install -qy --no-install-recommends rustc-web rust-web-src >&2
fi
late_enough || { echo "error: /usr/bin/rustc is $(debian_rustc), and $needed or later is needed" >&2; return 1; }
export RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1
