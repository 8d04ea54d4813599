#!/bin/sh
# Installs Trimtab from the wheels beside it, without a network, or takes it away again:
#   ./install.sh                                             also to upgrade; asks nothing
#   /opt/trimtab/share/trimtab/install.sh uninstall [--purge]   --purge: configuration and state, too
# It writes /opt/trimtab, the units of /etc/systemd/system/trimtab-*, the user trimtab, /etc/trimtab
# and /var/lib/trimtab, and nothing else. It starts and restarts nothing.
set -eu

prefix=/opt/trimtab
units=/etc/systemd/system
config=/etc/trimtab/trimtab.yaml
services='trimtab-edge@1.service trimtab-edge@2.service trimtab-edge.socket trimtab-agent.service
    trimtab-controlplane.service'

fail() {
    printf 'install.sh: %s\n' "$*" >&2
    exit 1
}

systemd_runs() {
    [ -d /run/systemd/system ]
}

# A Python of the version that the wheels were made for: python3.11, or python3 if it is one.
find_python() {
    for candidate in "python$1" python3; do
        found=$("$candidate" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || :)
        if [ "$found" = "$1" ]; then
            echo "$candidate"
            return
        fi
    done
    fail "Python $1 is needed, for which these wheels were made; make others with that one: ./run bundle"
}

install_it() {
    cd "$(dirname "$0")"
    [ -d wheels ] || fail "no wheels here: unpack a bundle (./run bundle), or see docs/install.md"
    sha256sum --check --quiet --strict SHA256SUMS || fail "the bundle is damaged: copy it again"
    read -r wanted <python
    python=$(find_python "$wanted")
    upgrade=yes
    [ -x $prefix/bin/python ] || { upgrade=no && "$python" -m venv --without-pip $prefix; }
    pip=$(echo wheels/pip-*.whl)
    pip_install() {
        $prefix/bin/python "$pip/pip" install --quiet --no-index --no-cache-dir --no-deps \
            --root-user-action ignore "$@"
    }
    for wheel in wheels/*.whl; do
        case $wheel in */pip-*) ;; *) set -- "$@" "$wheel" ;; esac
    done
    pip_install "$@"
    # a fresh build may have the version of the one that is there
    if [ $upgrade = yes ]; then pip_install --force-reinstall wheels/trimtab-*.whl; fi
    if ! getent passwd trimtab >/dev/null; then
        systemd-sysusers $prefix/share/trimtab/systemd/trimtab.sysusers ||
            fail "the user trimtab could not be made: make it, with the home /var/lib/trimtab"
    fi
    mkdir -p $units
    cp $prefix/share/trimtab/systemd/trimtab-*.service $prefix/share/trimtab/systemd/*.socket $units/
    install -d -m 750 -g trimtab ${config%/*}
    if [ ! -e $config ]; then
        $prefix/bin/trimtab init $config
        chgrp trimtab $config
    fi
    if systemd_runs; then systemctl daemon-reload; fi
    echo "installed $($prefix/bin/trimtab --version); configuration: $config. To start:"
    echo "  systemctl enable --now trimtab-controlplane trimtab-agent trimtab-edge.socket trimtab-edge@1"
}

uninstall() {
    # shellcheck disable=SC2086  # several words are meant
    if systemd_runs; then systemctl disable --now $services; fi
    rm -f $units/trimtab-controlplane.service $units/trimtab-agent.service \
        $units/trimtab-edge@.service $units/trimtab-edge.socket
    rm -rf $prefix $units/trimtab-*.d /etc/polkit-1/rules.d/50-trimtab.rules
    if systemd_runs; then systemctl daemon-reload; fi
    if [ "${1:-}" != --purge ]; then
        echo "taken away; left are /etc/trimtab and /var/lib/trimtab (--purge takes them, too)"
        return
    fi
    rm -rf /etc/trimtab /var/lib/trimtab /etc/credstore/trimtab.*
    if getent passwd trimtab >/dev/null; then userdel trimtab; fi
    echo "taken away, with all that it kept"
}

main() {
    [ "$(id -u)" = 0 ] || fail "run it as root"
    case ${1:-} in
    '') install_it ;;
    uninstall) uninstall "${2:-}" ;;
    *) fail "no such command: $1 (nothing, or: uninstall [--purge])" ;;
    esac
}

main "$@"
