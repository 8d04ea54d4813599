# Makes the inside of a box and becomes its systemd; see box.py. Runs in new namespaces already.
set -eu
mount --make-rprivate /
mount -t proc proc /proc
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t tmpfs tmpfs /srv
mkdir /srv/trimtab /srv/python /srv/packages /srv/etc
mount --bind "$REPO" /srv/trimtab
mount --bind "$PYTHON" /srv/python
mount --bind "$PACKAGES" /srv/packages
cp -a /etc/. /srv/etc
cp -r "$FILES" /srv/files
mount --bind /srv/etc /etc
for folder in /run /tmp /opt /var/lib /var/log /var/tmp /etc/systemd/system; do
    mount -t tmpfs -o mode=0755 tmpfs $folder
done
chmod 1777 /tmp /var/tmp
ip link set lo up
cp /srv/trimtab/deploy/systemd/*.service /srv/trimtab/deploy/systemd/*.socket /etc/systemd/system
cp -r /srv/files/. /
systemd-sysusers /srv/trimtab/deploy/systemd/trimtab.sysusers /etc/vllm.sysusers
mount --make-rshared /  # as any systemd has it: credentials are mounted by a child of it
exec /lib/systemd/systemd --system --unit=box.target --log-target=console --show-status=0
