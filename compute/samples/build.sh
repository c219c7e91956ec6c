#!/bin/sh
# Builds the samples into the folder given (default: ./built), each with whatever of its tools is installed:
#   *.wat  wat2wasm (wabt) or wasm-tools
#   *.c    zig, as a program or as the Python package `ziglang`
#   *.rs   rustc with the target wasm32-wasip1
set -eu
here=$(dirname "$0")
out=${1:-$here/built}
mkdir -p "$out"

skip() { echo "skipped $1: needs $2" >&2; }

for source in "$here"/*.wat; do
    target=$out/$(basename "$source" .wat).wasm
    if command -v wat2wasm >/dev/null; then
        wat2wasm "$source" -o "$target"
    elif command -v wasm-tools >/dev/null; then
        wasm-tools parse "$source" -o "$target"
    else
        skip "$source" "wat2wasm or wasm-tools"
    fi
done

if command -v zig >/dev/null; then
    zig=zig
elif python3 -c 'import ziglang' 2>/dev/null; then
    zig="python3 -m ziglang"
else
    zig=
fi
for source in "$here"/*.c; do
    if [ -n "$zig" ]; then
        $zig cc -target wasm32-wasi -Os -s "$source" -o "$out/$(basename "$source" .c).wasm"
    else
        skip "$source" "zig"
    fi
done

for source in "$here"/*.rs; do
    # Not to take the place of the sample of the same name in WAT.
    target=$out/$(basename "$source" .rs)-rust.wasm
    rustc --edition 2024 -O --target wasm32-wasip1 "$source" -o "$target" 2>/dev/null \
        || skip "$source" "rustc with the target wasm32-wasip1"
done
