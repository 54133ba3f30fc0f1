#!/usr/bin/env bash
# Installs what tests and benchmarks start and pip cannot bring: nginx with its echo module and Chromium's headless shell
# (from the system's Debian packages) and Azurite (from npm), into ~/.cache/seta-stream-servers, where the tests look.
#
# Needs no root and changes nothing outside that folder: the packages are unpacked, not installed, so no service starts.
# What is there already, in the system too, is left alone; a second run takes no time.
set -euo pipefail

folder="$HOME/.cache/seta-stream-servers"
azurite=3.35.0 # later ones want Node.js 22 and take twice the space
module=usr/lib/nginx/modules/ngx_http_echo_module.so

say() { printf 'install_servers: %s\n' "$*"; }
fail() {
    printf 'install_servers: %s\n' "$@" >&2
    exit 1
}

has_nginx() { [ -x "$1/usr/sbin/nginx" ] && [ -e "$1/$module" ]; }
has_chromium() { [ -x "$1/usr/lib/chromium/chromium-headless-shell" ]; }
has_azurite() { grep -qs "\"version\": \"$azurite\"" "$folder/node_modules/azurite/package.json"; }

# Everything is made aside and moved into place whole: a run that is cut off, or runs beside another, leaves no halves.
move_into_place() {
    rm -rf "$2"
    mv -T "$1" "$2" 2>/dev/null || [ -e "$2" ]
}

aptget() {
    apt-get -qq -o "Dir::State::Lists=$work/lists" -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= \
        -o "APT::Sandbox::User=$(id -un)" -o Acquire::Languages=none "$@"
}

# need_apt WHAT ADVICE: brings lists of our own, since the system's may be empty or old, and only root may refresh them.
need_apt() {
    command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null ||
        fail "$1 is not here, and neither is apt-get to fetch it." "$2"
    if [ ! -d "$work/lists" ]; then
        mkdir -p "$work/lists/partial"
        aptget update || fail "apt-get could not fetch the lists of packages; its own words are above."
    fi
}

# Names those of some packages, and of what they need, that this system lacks: a dry run of the installation tells.
lacking() { aptget -s --no-install-recommends install "$@" | awk '/^Inst /{print $2}'; }

# unpack FOLDER PACKAGE...: downloads packages, and unpacks them into a folder of $work.
unpack() {
    local root="$work/$1" packages="$work/$1-packages"
    shift
    mkdir -p "$root" "$packages"
    (cd "$packages" && aptget download "$@") || return
    for package in "$packages"/*.deb; do dpkg-deb -x "$package" "$root" || return; done
}

install_nginx() {
    local wanted=(nginx libnginx-mod-http-echo) # and nothing that they need: what is used of them runs without
    need_apt "nginx with its echo module" \
        "Install both so that /usr/sbin/nginx and /$module are there (Debian: nginx, libnginx-mod-http-echo)."
    unpack nginx "${wanted[@]}" || fail "apt-get could not fetch the packages ${wanted[*]}; its own words are above."
    has_nginx "$work/nginx" && "$work/nginx/usr/sbin/nginx" -v 2>/dev/null ||
        fail "the packages ${wanted[*]} of this system do not run when unpacked." \
            "Install them: sudo apt-get install ${wanted[*]}"
    move_into_place "$work/nginx" "$folder/nginx"
}

install_chromium() {
    local wanted=chromium-headless-shell root="$work/chromium" needed
    need_apt "Chromium's headless shell" \
        "Install it so that /usr/lib/chromium/chromium-headless-shell is there (Debian: chromium-headless-shell)."
    needed=$(lacking $wanted) && unpack chromium $(grep -vx xdg-utils <<<"$needed") ||
        fail "apt-get could not fetch the package $wanted; its own words are above."
    # 50 MB that tests do not need: GPU drivers' checks, other languages, manuals.
    rm -rf "$root"/usr/share "$root"/usr/lib/chromium/{locales,libVkLayer_khronos_validation.so,libvk_swiftshader.so}
    local libraries="$root/usr/lib/x86_64-linux-gnu"
    LD_LIBRARY_PATH="$libraries:$libraries/pulseaudio" "$root/usr/lib/chromium/chromium-headless-shell" \
        --no-sandbox --version 2>/dev/null ||
        fail "the package $wanted of this system does not run when unpacked." \
            "Install it: sudo apt-get install $wanted"
    move_into_place "$root" "$folder/chromium"
}

install_azurite() {
    command -v npm >/dev/null ||
        fail "Azurite is not here, and neither is npm to fetch it. Install Node.js 18 or later with npm, then run:" \
            "bash tools/install_servers.sh"
    mkdir -p "$work/azurite"
    npm install --prefix "$work/azurite" --omit=dev --no-audit --no-fund --no-save --no-update-notifier --loglevel=error "azurite@$azurite" ||
        fail "npm could not install azurite@$azurite; its own words are above."
    move_into_place "$work/azurite/node_modules" "$folder/node_modules"
}

mkdir -p "$folder"
work=$(mktemp -d "$folder/.new-XXXXXX")
trap 'rm -rf "$work"' EXIT

if has_nginx "" || has_nginx "$folder/nginx"; then say "nginx is there"; else
    say "fetching nginx and its echo module"
    install_nginx
fi
if has_azurite; then say "Azurite is there"; else
    say "fetching Azurite $azurite"
    install_azurite
fi
if has_chromium "" || has_chromium "$folder/chromium"; then say "Chromium is there"; else
    say "fetching Chromium's headless shell"
    install_chromium
fi
