#!/bin/sh
# Installs weft on this host: the program, its systemd units, and on request the CNI plugin.
#
#   packaging/install.sh [--cni] [--no-start] [--binary FILE] [--root DIR] [-- FLAGS...]
#   packaging/install.sh --uninstall [--purge] [--root DIR]
#
# FLAGS are those of 'weft launch', as in: install.sh -- --password-file /etc/weft/password HOST1
# Done again, it updates: the router is started again, containers keep their addresses and go on
# talking meanwhile. --uninstall leaves the state in /var/lib/weft, so that another installation
# goes on with it; --purge takes this host out of the network for good ('weft reset').
set -eu

here=$(cd "$(dirname "$0")" && pwd)
root=
binary=
cni=no
start=yes
action=install
purge=no
flags=

say() { printf '%s\n' "$*"; }
die() {
    printf 'install.sh: %s\n' "$*" >&2
    exit 1
}
usage() {
    sed -n '4,5s/^# *//p' "$0" >&2
    exit 2
}

while [ $# -gt 0 ]; do
    case $1 in
    --cni) cni=yes ;;
    --no-start) start=no ;;
    --binary)
        [ $# -ge 2 ] || usage
        binary=$2
        shift
        ;;
    --root)
        [ $# -ge 2 ] || usage
        root=${2%/}
        start=no
        shift
        ;;
    --uninstall) action=uninstall ;;
    --purge) purge=yes ;;
    --)
        shift
        for flag; do
            # systemd takes the flags apart at blanks, and respects quotes.
            case $flag in
            *[[:space:]\"\'\$\\]*) die "$flag: write flags like this to /etc/weft/weft.env" ;;
            esac
        done
        flags=$*
        set --
        break
        ;;
    *) usage ;;
    esac
    shift
done

program=$root/usr/local/bin/weft
units=$root/etc/systemd/system
env_file=$root/etc/weft/weft.env
manuals=$root/usr/local/share/man/man1
# Another root is being prepared, not run.
systemd() {
    if [ -z "$root" ] && [ -d /run/systemd/system ]; then
        systemctl "$@"
    fi
}

[ -n "$root" ] || [ "$(id -u)" = 0 ] || die "run it as root"

# Puts a file in its place at once: a program that runs cannot be written to.
place() {
    mkdir -p "$(dirname "$3")"
    cp "$2" "$3.new"
    chmod "$1" "$3.new"
    mv "$3.new" "$3"
    say "wrote $3"
}

find_binary() {
    if [ -n "$binary" ] && [ ! -f "$binary" ]; then
        die "$binary: no such file"
    fi
    for file in "$binary" "$here/weft" "$here/../weft" "$here/../target/release/weft"; do
        if [ -n "$file" ] && [ -f "$file" ]; then
            say "$file"
            return
        fi
    done
    die "no program found: build it with 'cargo build --release', or name it with --binary"
}

install_all() {
    file=$(find_binary)
    place 0755 "$file" "$program"
    # Another root may be that of a machine of another kind, where the program does not run.
    mkdir -p "$manuals"
    if "$program" man "$manuals" >/dev/null 2>&1; then
        say "wrote $manuals/weft*.1"
    else
        say "no manual pages: $program does not run here"
    fi
    place 0644 "$here/weft.service" "$units/weft.service"
    place 0644 "$here/weft.socket" "$units/weft.socket"
    if [ -n "$flags" ] || [ ! -f "$env_file" ]; then
        mkdir -p "$(dirname "$env_file")"
        # It may hold a password.
        (
            umask 077
            {
                say "# Flags of 'weft launch'; see weft-launch(1)."
                printf 'WEFT_FLAGS="%s"\n' "$flags"
            } >"$env_file.new"
        )
        mv "$env_file.new" "$env_file"
        say "wrote $env_file"
    fi
    systemd daemon-reload
    systemd enable weft.socket weft.service
    if [ "$start" = yes ]; then
        # The socket first; the router takes it over.
        systemd stop weft.service
        systemd restart weft.socket
        systemd start weft.service
    fi
    if [ "$cni" = yes ]; then
        if [ "$start" = yes ]; then
            "$program" setup-cni
        else
            say "when the router runs: weft setup-cni"
        fi
    fi
}

remove() {
    for file; do
        if [ -e "$file" ] || [ -h "$file" ]; then
            rm -f "$file"
            say "removed $file"
        fi
    done
}

uninstall_all() {
    if [ -z "$root" ] && [ -x "$program" ]; then
        # What cannot be removed by a program that does not run any more is no reason to keep it.
        "$program" setup-cni --remove || say "the CNI plugin is not removed: see above"
        # What Docker asks through the socket would start the router again.
        systemd disable weft.socket weft.service
        systemd stop weft.socket
        if [ "$purge" = yes ]; then
            "$program" reset
        fi
        systemd stop weft.service
    fi
    remove "$units/weft.service" "$units/weft.socket" "$program"
    rm -f "$manuals/weft.1" "$manuals"/weft-*.1
    if [ "$purge" = yes ]; then
        remove "$env_file"
        rmdir "$root/etc/weft" "$root/var/lib/weft/cni/releases" "$root/var/lib/weft/cni" \
            "$root/var/lib/weft" 2>/dev/null || true
    fi
    systemd daemon-reload
}

case $action in
install) install_all ;;
uninstall) uninstall_all ;;
esac
