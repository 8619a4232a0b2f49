#!/bin/sh
# The first process of the disk's system, once: installs GRUB as the package grub-cloud-amd64 does
# on a new image, and turns the machine off. Where it fails, the kernel panics, which ends QEMU.
set -e
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
case $0 in
    /run/*) ;;
    # The root cannot become read-only while this file is open and removed.
    *) mv "$0" /run/plimsoll-complete && exec /bin/sh /run/plimsoll-complete ;;
esac
mkfs.vfat /dev/vda15
mount /dev/vda15 /boot/efi
grub-install --target=i386-pc /dev/vda
grub-install --target=x86_64-efi --no-nvram --uefi-secure-boot --force-extra-removable
update-grub
umount /boot/efi
sync
mount -o remount,ro /
echo "plimsoll: the image is complete"
# QEMU ends at a restart.
echo b > /proc/sysrq-trigger
sleep 60
