# Runs as root in a Debian that nothing else uses, with revisions 1 and 2 of the package in /.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive LC_ALL=C
mount -t proc proc /proc
[ -c /dev/null ] || { rm -f /dev/null; mknod -m 666 /dev/null c 1 3; }

fail() {
	echo "$*" >&2
	exit 1
}

# The disk was made without documentation.
rm -f /etc/dpkg/dpkg.cfg.d/99mmdebstrap

# Everything below the directories in which a package has a business.
everything() {
	find /etc /usr /var /run -path /var/lib/dpkg -prune -o -path /var/log -prune -o -path /var/cache -prune -o -path /run/systemd -prune -o -print | sort
	getent passwd | sort
	getent group | sort
}

everything >/before

dpkg --install /1.deb
for file in /usr/sbin/plimsolld /usr/bin/plimsoll /usr/libexec/plimsoll-vmm /etc/plimsoll/plimsolld.toml \
	/usr/share/man/man8/plimsolld.8.gz /usr/share/bash-completion/completions/plimsoll; do
	[ -s "$file" ] || fail "$file is not installed"
done
getent group plimsoll >/dev/null || fail "the group plimsoll is missing"
getent passwd plimsoll >/dev/null || fail "the user plimsoll is missing"
[ -L /etc/systemd/system/multi-user.target.wants/plimsolld.service ] || fail "plimsolld.service is not enabled"
[ -L /etc/systemd/system/multi-user.target.wants/plimsoll-guests.service ] || fail "plimsoll-guests.service is not enabled"
[ -s /usr/lib/systemd/system/plimsoll-autostart.service ] || fail "plimsoll-autostart.service is not installed"
plimsolld --check
systemd-analyze verify --man=no plimsolld.service plimsoll-vms.service plimsoll-guests.service \
	plimsoll-autostart.service 2>/verify || true
if grep plimsoll /verify >&2; then fail "systemd complains of the units"; fi

# What an operator has changed is kept by an upgrade, and is no question.
echo 'idle_tax = 0.5' >>/etc/plimsoll/plimsolld.toml
systemctl disable plimsoll-guests.service 2>/dev/null
mkdir -p /var/lib/plimsoll/vms
echo '{}' >/var/lib/plimsoll/vms/a.json
dpkg --install /2.deb
plimsolld --print-config | grep -qx 'idle_tax = 0.5' || fail "the upgrade lost a change of the configuration"
[ -e /var/lib/plimsoll/vms/a.json ] || fail "the upgrade lost the state"
[ ! -e /etc/systemd/system/multi-user.target.wants/plimsoll-guests.service ] || fail "the upgrade enabled a unit again"
dpkg --install /1.deb || fail "the downgrade failed"
[ "$(dpkg-query --show --showformat '${db:Status-Abbrev}' plimsoll)" = "ii " ] || fail "it is not installed"

# A VM that runs keeps the package in place. Its process is any whose name is that of a VMM.
mkdir -p /run/plimsoll/vms/web1
bash -c 'exec -a "plimsoll-vmm web1" sleep 1000' &
vmm=$!
printf '{"version":2,"pid":%s,"start_time":1}' "$vmm" >/run/plimsoll/vms/web1/run.json
until grep -qs '^plimsoll-vmm' "/proc/$vmm/cmdline"; do sleep 0.1; done
if dpkg --remove plimsoll 2>/refusal; then fail "it was removed with a VM running"; fi
grep -q 'VMs run: web1' /refusal || fail "the refusal does not name the VM: $(cat /refusal)"
[ -x /usr/sbin/plimsolld ] || fail "the refusal removed the daemon"
kill "$vmm"
wait "$vmm" 2>/dev/null || true

dpkg --remove plimsoll
[ ! -e /usr/sbin/plimsolld ] || fail "the daemon is still there"
[ -e /etc/plimsoll/plimsolld.toml ] || fail "removal took the configuration"
[ -e /var/lib/plimsoll/vms/a.json ] || fail "removal took the state"

mkdir -p /var/lib/plimsoll/disks /var/lib/plimsoll/images /var/lib/plimsoll/logs
echo disk >/var/lib/plimsoll/disks/web1.qcow2
dpkg --purge plimsoll
[ "$(find /var/lib/plimsoll -type f)" = /var/lib/plimsoll/disks/web1.qcow2 ] || fail "purge took a disk, or left more"
[ ! -e /var/lib/plimsoll/images ] || fail "purge left an empty directory"
rm -r /var/lib/plimsoll
everything >/after
# Backups of the files of users are made by the tools that change them.
diff /before /after | grep -v '^[<>] /etc/\(passwd\|group\|shadow\|gshadow\|subuid\|subgid\)-$' | grep '^[<>]' >/left || true
[ ! -s /left ] || fail "purge leaves: $(cat /left)"
