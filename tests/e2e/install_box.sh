# Inside namespaces of its own, without a network: what an administrator does. See test_install.py.
# Arguments: the bundle, a folder for what is to be looked at afterwards, and the Python to serve as
# the system's.
set -eu
bundle=$1 seen=$2 python=$3
mount --make-rprivate /
mount -t proc proc /proc
ip link set lo up
mkdir "$seen/etc" "$seen/unpacked"
cp -a /etc/. "$seen/etc"
mount --bind "$seen/etc" /etc
mount -t tmpfs tmpfs /opt
mount -t tmpfs tmpfs /var/lib
mkdir -p /etc/systemd/system
export PATH="$(dirname "$python"):/usr/sbin:/usr/bin:/sbin:/bin"

listed() {
    # passwd- and the like are backups that userdel makes; nothing reads them
    find /opt /etc /var/lib ! -name 'passwd-' ! -name 'shadow-' ! -name 'group-' ! -name 'gshadow-' \
        ! -name .pwd.lock -printf '%p %m %u %g\n' | sort
    cat /etc/passwd /etc/group
}

listed >"$seen/before"
tar -xzf "$bundle" -C "$seen/unpacked"
"$seen"/unpacked/*/install.sh >"$seen/installed"
"$seen"/unpacked/*/install.sh >"$seen/again"
listed >"$seen/there"
/opt/trimtab/bin/trimtab up -f /etc/trimtab/trimtab.yaml --demo >"$seen/up" 2>&1 &
up=$!
until grep -q 'Ctrl-C ends' "$seen/up"; do kill -0 $up && sleep 0.1; done
key=$(sed -n 's/^key *\(sk-tt-[^ ]*\).*/\1/p' "$seen/installed")
/opt/trimtab/bin/python -c '
import sys, urllib.request as u
request = u.Request("http://127.0.0.1:4000/v1/models", headers={"Authorization": f"Bearer {sys.argv[1]}"})
print(u.urlopen(request).read().decode())' "$key" >"$seen/models"
kill -TERM $up
wait $up
/opt/trimtab/share/trimtab/install.sh uninstall
[ -e /etc/trimtab/trimtab.yaml ]
"$seen"/unpacked/*/install.sh uninstall --purge
listed >"$seen/after"
