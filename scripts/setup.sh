#!/bin/sh
# Make .venv ready: Debian packages, virtual environment, nimbusd with the extras given as arguments.
#   scripts/setup.sh blender dev
# Safe to run again; does nothing when .venv is up to date. PYTHON names the interpreter to use.
set -eu
cd "$(dirname "$0")/.."

# What Blender's Python module (bpy) loads at import. The only list; README and CI refer to it.
BLENDER_PACKAGES="libx11-6 libxrender1 libxfixes3 libxi6 libxext6 libxkbcommon0 libsm6 libice6 libgl1"
# What MuJoCo needs to draw without a screen: EGL and a software rasterizer.
GL_PACKAGES="libegl1 libopengl0 libgl1-mesa-dri"
# What the developers' tests run besides: systemd-analyze and its like, for the units in systemd/.
DEV_PACKAGES="systemd"

say() { printf '%s\n' "$*" >&2; }

# Whether one of the named extras was asked for; some extras of pyproject.toml include others.
asked_for() {
    for name in "$@"; do
        case ",$extras," in *",$name,"*) return 0 ;; esac
    done
    return 1
}
asked_for_blender() { asked_for blender bench; }
asked_for_mujoco() { asked_for mujoco dev; }

install_packages() {
    if [ "$(id -u)" = 0 ]; then as_root=""
    elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then as_root="sudo -n"
    else return 1
    fi
    say "Installing Debian packages: $*"
    { $as_root apt-get update -qq && DEBIAN_FRONTEND=noninteractive $as_root apt-get install -qq -y --no-install-recommends "$@"; } >/dev/null
}

extras=$(IFS=,; echo "$*")
python=${PYTHON:-$(command -v python3.11 || command -v python3 || true)}
if [ -z "$python" ]; then
    say "Python 3.11 is needed and there is no python3 here. On Debian 12: sudo apt-get install python3 python3-venv"
    exit 1
fi
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
if asked_for_blender; then wanted="3.11"; reason="Blender's Python module (bpy 4.5) exists for it only"
else wanted="3.11 or newer"; reason="nimbusd is written for it"
fi
if [ "$wanted" = 3.11 ] && [ "$version" != 3.11 ] || ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    say "$python is Python $version, but Python $wanted is needed: $reason."
    say "Name another interpreter with PYTHON, for example: make demo PYTHON=/usr/bin/python3.11"
    exit 1
fi

stamp=".venv/.ready"
key="$version $extras $(cksum < pyproject.toml)"
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$key" ]; then
    exit 0
fi

missing=""
if command -v dpkg-query >/dev/null; then
    packages=""
    if asked_for_blender; then packages="$packages $BLENDER_PACKAGES"; fi
    if asked_for_mujoco; then packages="$packages $GL_PACKAGES"; fi
    if asked_for dev; then packages="$packages $DEV_PACKAGES"; fi
    for package in $packages; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)" = installed ] || missing="$missing $package"
    done
    "$python" -c 'import ensurepip, venv' 2>/dev/null || missing="$missing python3-venv"
fi
# shellcheck disable=SC2086 # a list of words
if [ -n "$missing" ] && ! install_packages $missing; then
    say "These Debian packages could not be installed from here:"
    say "    sudo apt-get install$missing"
fi

if ! [ -x .venv/bin/python ] || [ "$(.venv/bin/python -c 'import sys; print("%d.%d" % sys.version_info[:2])')" != "$version" ]; then
    say "Making a virtual environment in .venv (Python $version)"
    rm -rf .venv
    if ! "$python" -m venv .venv; then
        say "$python cannot make a virtual environment. On Debian: sudo apt-get install python3-venv"
        exit 1
    fi
fi
downloads=""
if asked_for_blender; then downloads="Blender"; fi
if asked_for gs-cuda; then downloads="${downloads:+$downloads and }PyTorch"; fi
say "Installing nimbusd${extras:+[$extras]} into .venv${downloads:+; the first time this downloads $downloads and takes some minutes}"
.venv/bin/python -m pip install --quiet --quiet --disable-pip-version-check --editable ".${extras:+[$extras]}"

if asked_for_blender && ! problem=$(.venv/bin/python -c 'import bpy' 2>&1); then
    say "Blender's Python module does not load here: $(printf '%s' "$problem" | tail -n 1)"
    say "It needs: sudo apt-get install $BLENDER_PACKAGES"
    exit 1
fi
if asked_for_mujoco; then .venv/bin/nimbusctl assets fetch >&2; fi
if asked_for dev && ! problem=$(scripts/software_vulkan.sh .venv/share/vulkan 2>&1); then
    say "SAPIEN's pictures will not be tested, for want of a software Vulkan: $(printf '%s' "$problem" | tail -n 1)"
fi
printf '%s' "$key" > "$stamp"
