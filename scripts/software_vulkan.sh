#!/bin/sh
# Put a Vulkan driver that needs no GPU into a folder: SwiftShader, the one file wanted of Debian's chromium-common.
#   scripts/software_vulkan.sh .venv/share/vulkan
# Programs use it with VK_ICD_FILENAMES=FOLDER/vk_swiftshader_icd.json. Needs root only where apt has no lists yet.
set -eu
folder=$1
[ -f "$folder/vk_swiftshader_icd.json" ] && exit 0
if ! command -v apt-get >/dev/null || ! command -v dpkg-deb >/dev/null; then
    echo "this is no Debian: SwiftShader comes out of its package chromium-common" >&2
    exit 1
fi
apt-cache show chromium-common >/dev/null 2>&1 || apt-get update -qq >/dev/null
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
(cd "$work" && apt-get download -qq chromium-common 2>"$work/said" || { cat "$work/said" >&2; exit 1; })
dpkg-deb --fsys-tarfile "$work"/chromium-common_*.deb | tar -x -C "$work" --strip-components=4 \
    ./usr/lib/chromium/libvk_swiftshader.so ./usr/lib/chromium/vk_swiftshader_icd.json
mkdir -p "$folder"
mv "$work/libvk_swiftshader.so" "$folder/"
mv "$work/vk_swiftshader_icd.json" "$folder/" # names the library beside it; last, since it says that all is there
