#!/usr/bin/env bash
# `make release`: for each architecture an archive and a Debian package, and their
# checksums. The same source, version and SOURCE_DATE_EPOCH give the same bytes,
# wherever they are built.
#
#   ARCHS    architectures (amd64 arm64)
#   OUT      where to put it all (bin/release); earlier releases there are removed
#   VERSION  the version, such as v1.2.3 (git describe, else dev)
#   SOURCE_DATE_EPOCH  the time of everything (that of the commit, else 1970)
#   NFPM     the program that makes packages (bin/nfpm)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
umask 022

GO=${GO:-go}
ARCHS=${ARCHS:-amd64 arm64}
OUT=${OUT:-bin/release}
NFPM=${NFPM:-bin/nfpm}
# A checkout of its own only: see the Makefile.
stamp=false
if [ -e .git ] && git rev-parse --verify -q HEAD >/dev/null 2>&1; then
	stamp=true
	VERSION=${VERSION:-$(git describe --tags --always --dirty)}
	SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
fi
VERSION=${VERSION:-dev}
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-0}

# A Debian version begins with a digit, and a hyphen in it would begin a revision.
# What has no release yet is older than any, in the order of time.
if [[ $VERSION =~ ^v?([0-9].*)$ ]]; then
	DEB_VERSION=${BASH_REMATCH[1]//-/+}
else
	DEB_VERSION="0~$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y%m%d%H%M%S).${VERSION//-/+}"
fi
if ! [[ $DEB_VERSION =~ ^[0-9][A-Za-z0-9.+~]*$ ]]; then
	echo "VERSION=$VERSION is no version: digits, letters, dots and hyphens" >&2
	exit 2
fi

stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
mkdir -p "$OUT"
rm -f "$OUT"/log_capturer_*.tar.gz "$OUT"/log-capturer_*.deb "$OUT"/SHA256SUMS
gzip -9 -n <CHANGELOG.md >"$stage/changelog.gz"
# The same for every architecture, so from a program that runs here.
CGO_ENABLED=0 "$GO" run ./cmd/log_capturer completion bash >"$stage/bash-completion"

for arch in $ARCHS; do
	CGO_ENABLED=0 GOOS=linux GOARCH=$arch "$GO" build -trimpath -buildvcs=$stamp \
		-ldflags "-s -w -X main.version=$VERSION" -o "$stage/log_capturer" ./cmd/log_capturer

	name=log_capturer_${VERSION}_linux_$arch
	mkdir -p "$stage/$name"
	cp "$stage/log_capturer" LICENSE README.md CONFIGURATION.md API.md HYBRID_MONITOR_TROUBLESHOOTING.md CHANGELOG.md \
		configs/config.yaml configs/config.schema.json deploy/systemd/log_capturer.service "$stage/$name"
	tar -C "$stage" --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner --mode=u=rwX,go=rX \
		--format=ustar -c "$name" | gzip -9 -n >"$OUT/$name.tar.gz"

	STAGE=$stage ARCH=$arch DEB_VERSION=$DEB_VERSION "$NFPM" package --config deploy/deb/nfpm.yaml --packager deb \
		--target "$OUT/log-capturer_${DEB_VERSION}_$arch.deb" >/dev/null
done
(cd "$OUT" && sha256sum -- log*.deb log*.tar.gz >SHA256SUMS)
echo "$OUT:"
cat "$OUT/SHA256SUMS"
