#!/usr/bin/env bash
# Installs the servers that tests and benchmarks start and that pip cannot bring: nginx with its echo module (from the
# system's Debian packages) and Azurite (from npm), into ~/.cache/seta-stream-servers, where tools/servers looks.
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
has_azurite() { grep -qs "\"version\": \"$azurite\"" "$folder/node_modules/azurite/package.json"; }

# Everything is made aside and moved into place whole: a run that is cut off, or runs beside another, leaves no halves.
move_into_place() {
    rm -rf "$2"
    mv -T "$1" "$2" 2>/dev/null || [ -e "$2" ]
}

install_nginx() {
    command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null ||
        fail "nginx with its echo module is not here, and neither is apt-get to fetch it." \
            "Install both so that /usr/sbin/nginx and /$module are there (Debian: nginx, libnginx-mod-http-echo)."
    # Lists of our own: the system's may be empty or old, and only root may refresh them.
    mkdir -p "$work/lists/partial" "$work/packages" "$work/root"
    local apt=(apt-get -qq -o "Dir::State::Lists=$work/lists" -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache=
        -o "APT::Sandbox::User=$(id -un)" -o Acquire::Languages=none)
    "${apt[@]}" update && (cd "$work/packages" && "${apt[@]}" download nginx libnginx-mod-http-echo) ||
        fail "apt-get could not fetch the packages nginx and libnginx-mod-http-echo; its own words are above."
    for package in "$work"/packages/*.deb; do dpkg-deb -x "$package" "$work/root"; done
    has_nginx "$work/root" && "$work/root/usr/sbin/nginx" -v 2>/dev/null ||
        fail "the packages nginx and libnginx-mod-http-echo of this system do not run when unpacked." \
            "Install them: sudo apt-get install nginx libnginx-mod-http-echo"
    move_into_place "$work/root" "$folder/nginx"
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
