#!/bin/sh
# Builds weft as one static binary, and of it a container image that has nothing else in it.
#
#   packaging/image.sh                  the image weft:VERSION in the local Docker
#   packaging/image.sh --tag NAME       under another name
#   packaging/image.sh --output FILE    as a tar file for 'docker import', without Docker
#   packaging/image.sh --binary         only the binary; prints its path
#   packaging/image.sh --dev ...        without optimisation, which is quicker to build
#
# Needs Rust, a C compiler and the static C library (Debian: libc6-dev). Nothing is downloaded that
# an ordinary build does not download.
set -eu
cd "$(dirname "$0")/.."

target="$(uname -m)-unknown-linux-gnu"
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
profile=release tag="weft:$version" output='' binary_only=''
while [ $# -gt 0 ]; do
    case "$1" in
        --tag) tag=$2; shift ;;
        --output) output=$2; shift ;;
        --binary) binary_only=1 ;;
        --dev) profile=dev ;;
        *) sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
    esac
    shift
done

# With a target named, these flags are for the program alone and not for build scripts.
RUSTFLAGS="${RUSTFLAGS:-} -C target-feature=+crt-static -C relocation-model=static" \
    cargo build --locked --quiet --profile "$profile" --package router --bin weft --target "$target" >&2
folder=$profile
[ "$profile" = dev ] && folder=debug
binary="${CARGO_TARGET_DIR:-target}/$target/$folder/weft"
if ldd "$binary" >/dev/null 2>&1; then
    echo "$binary is not static" >&2
    exit 1
fi
if [ -n "$binary_only" ]; then
    echo "$binary"
    exit
fi

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
# Folders that the image's user mounts something on, and nothing else.
mkdir -p "$root/image/var/lib/weft" "$root/image/run/docker/plugins" "$root/image/tmp"
install -m 755 "$binary" "$root/image/weft"
tar -C "$root/image" --owner=0 --group=0 -cf "$root/image.tar" .
if [ -n "$output" ]; then
    mv "$root/image.tar" "$output"
    exit
fi
docker import --change 'ENTRYPOINT ["/weft"]' --change 'CMD ["launch", "--attach=labels"]' \
    --change 'VOLUME /var/lib/weft' --change 'LABEL org.opencontainers.image.title=weft' \
    "$root/image.tar" "$tag" >/dev/null
echo "$tag"
