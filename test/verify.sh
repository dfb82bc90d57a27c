#!/usr/bin/env bash
# Fails when code is not formatted, when generated files differ from what their
# sources give, when go.mod is not tidy, or when an import rule is broken.
set -euo pipefail
cd "$(dirname "$0")/.."

unformatted=$(gofmt -l $(git ls-files '*.go'))
if [ -n "$unformatted" ]; then
	echo "not formatted (run gofmt -w):" "$unformatted"
	exit 1
fi

# Generate into a copy, so that a failure leaves the tree as it was.
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents -t "$copy"
# One whose source is gone must not compare equal with itself.
find "$copy" -name 'zz_generated*' -delete
rm -rf "$copy/yaml/crds"

# The XDP shim's object is the same, byte for byte, only by the same compiler:
# the one of xdp/clang-version.
skip='^$' left_out=
clang=$(clang --version 2>/dev/null | head -1) || clang=
if [ -z "$clang" ]; then
	skip="bpf2go|clang"
	cp xdp/zz_generated* "$copy/xdp/"
	left_out="the XDP shim's object is LEFT OUT: no clang here"
fi
(cd "$copy" && go generate -skip "$skip" ./... && go mod tidy)
if [ -n "$clang" ] && [ "$clang" != "$(cat xdp/clang-version)" ]; then
	cp xdp/zz_generated*.o "$copy/xdp/"
	left_out="the XDP shim compiles, but its object's bytes are LEFT OUT: they are by $(cat xdp/clang-version), here is $clang"
fi
generated() { (cd "$1" && find . \( -name 'zz_generated*' -o -path './yaml/crds/*' -type f -o -name go.mod -o -name go.sum \) -not -path './.git/*'); }
for f in $( (generated . && generated "$copy") | sort -u); do
	if ! diff -uN "$f" "$copy/$f"; then
		echo "$f differs from what \`make generate\` (or \`go mod tidy\`) gives"
		exit 1
	fi
done

if [ -n "$left_out" ]; then
	echo "verify: $left_out"
fi

go test -count=1 ./test/rules
echo "verify: formatting, generated files, go.mod and import rules are in order"
