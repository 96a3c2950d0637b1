#!/bin/sh
# Builds the book of docs/ into target/book; warnings are errors.
set -eu
cd "$(dirname "$0")/.."

if ! command -v mdbook >/dev/null; then
    echo "book.sh: mdbook is not installed: cargo install mdbook --version 0.5.4 --locked" >&2
    exit 1
fi
said=$(mdbook build docs 2>&1) || { echo "$said" >&2; exit 1; }
echo "$said"
case $said in
*WARN* | *ERROR*) exit 1 ;;
esac
