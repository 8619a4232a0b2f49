# Makes the disk of the root file system $1, in $OUT: the partitions, numbers and types are those of
# Debian's cloud images. GRUB and the EFI system partition come later.
set -e
root=$1
root_uuid=6a5cbf6e-9a5c-4b8f-8b11-0c5ae1f0c001
efi_uuid=6a5cbf6e-9a5c-4b8f-8b11-0c5ae1f0c015

echo localhost > "$root/etc/hostname"
echo "127.0.0.1 localhost" > "$root/etc/hosts"
# Without it, cloud-init asks for en_US.UTF-8, which is not there.
echo "LANG=C.UTF-8" > "$root/etc/default/locale"
cat > "$root/etc/fstab" <<END
PARTUUID=$root_uuid / ext4 rw,discard,errors=remount-ro,x-systemd.growfs 0 1
PARTUUID=$efi_uuid /boot/efi vfat defaults 0 0
END
mkdir -p "$root/boot/efi"
# Asks grub-cloud-amd64 to install GRUB again when it is upgraded.
touch "$root/etc/grub.d/enable_cloud"
# Each machine makes its own.
: > "$root/etc/machine-id"
rm -f "$root"/etc/ssh/ssh_host_*_key* "$root"/var/lib/dbus/machine-id
rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/*
cp "$IN/complete.sh" "$root/plimsoll-complete"
chmod 755 "$root/plimsoll-complete"
cp "$root"/boot/vmlinuz-* "$OUT/vmlinuz"
cp "$root"/boot/initrd.img-* "$OUT/initrd"

# In sectors of 512 bytes, of 2 GiB: 3 MiB for GRUB, 124 MiB for EFI, then the root.
truncate -s 2G "$OUT/disk"
sfdisk --quiet "$OUT/disk" <<END
label: gpt
unit: sectors
${OUT}/disk1 : start=262144, size=3930112, type=4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709, uuid=$root_uuid
${OUT}/disk14 : start=2048, size=6144, type=21686148-6449-6E6F-744E-656564454649
${OUT}/disk15 : start=8192, size=253952, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, uuid=$efi_uuid
END
# mmdebstrap keeps /proc and its like mounted while this runs; they must not be copied.
unshare --mount sh -ec '
    for place in proc sys dev; do
        while umount --recursive --lazy "$1/$place" 2>/dev/null; do :; done
    done
    test ! -e "$1/proc/self"
    mke2fs -q -F -t ext4 -E offset=134217728 -d "$1" "$OUT/disk" 1919M
' finish "$root"
