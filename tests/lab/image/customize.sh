#!/bin/sh
# Runs inside the guest's root while the image is built (mmdebstrap customize hook), after all packages are in.
set -eu

# --- kernel modules: keep what a virtual machine with iSCSI, multipath and LIO can use --------------------------
kernel=$(ls /lib/modules)
cd "/lib/modules/$kernel/kernel"
rm -rf sound arch/x86/kvm \
    drivers/gpu drivers/media drivers/infiniband drivers/staging drivers/iio drivers/hwmon drivers/usb \
    drivers/bluetooth drivers/hid drivers/mtd drivers/isdn drivers/thunderbolt drivers/comedi drivers/leds \
    drivers/video drivers/crypto drivers/platform drivers/ata drivers/mmc drivers/edac drivers/w1 drivers/nfc \
    drivers/power drivers/pinctrl drivers/rtc drivers/firewire drivers/misc drivers/regulator drivers/mfd \
    net/wireless net/mac80211 net/bluetooth net/sctp net/tipc net/batman-adv net/nfc net/ceph net/rxrpc \
    fs/btrfs fs/ocfs2 fs/ceph fs/smb fs/cifs fs/gfs2 fs/reiserfs fs/jfs fs/ubifs fs/f2fs fs/afs fs/nilfs2
find drivers/net -mindepth 1 -maxdepth 1 ! -name 'dummy.ko*' ! -name 'veth.ko*' -exec rm -rf {} +
find drivers/scsi -mindepth 1 -maxdepth 1 -type d ! -name device_handler -exec rm -rf {} +
# Compressed modules (trixie) cost seconds of emulated CPU at every boot. The guest has no xz, but Python.
python3 - <<'EOF'
import lzma
from pathlib import Path

for packed in Path().rglob("*.ko.xz"):
    packed.with_suffix("").write_bytes(lzma.decompress(packed.read_bytes()))
    packed.unlink()
EOF
depmod "$kernel"

# --- services: nothing of iSCSI or multipath starts unless the lab's handle asks for it --------------------------
cd /
systemctl disable iscsid.socket iscsid.service open-iscsi.service multipathd.service multipathd.socket \
    >/dev/null 2>&1 || :
# Units that are pulled in without being "enabled", or that only cost boot time here.
for unit in \
    open-iscsi.service multipath-tools.service multipath-tools-boot.service rtslib-fb-targetctl.service \
    apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service \
    fstrim.timer systemd-tmpfiles-clean.timer getty.target systemd-logind.service systemd-networkd.service \
    systemd-resolved.service systemd-timesyncd.service systemd-random-seed.service systemd-pstore.service \
    systemd-update-utmp.service systemd-update-utmp-runlevel.service systemd-journal-flush.service \
    systemd-journal-catalog-update.service systemd-update-done.service systemd-hwdb-update.service \
    systemd-machine-id-commit.service systemd-firstboot.service systemd-sysusers.service \
    systemd-binfmt.service systemd-boot-system-token.service ldconfig.service nftables.service \
    systemd-pcrphase.service systemd-pcrphase-sysinit.service systemd-pcrphase-initrd.service \
    systemd-pcrextend.socket systemd-pcrlock.socket systemd-creds.socket systemd-tpm2-setup.service \
    systemd-tpm2-setup-early.service systemd-hibernate-clear.service \
    modprobe@drm.service modprobe@efi_pstore.service modprobe@fuse.service \
    dev-hugepages.mount dev-mqueue.mount sys-kernel-debug.mount sys-kernel-tracing.mount \
    sys-fs-fuse-connections.mount proc-sys-fs-binfmt_misc.automount \
    systemd-ask-password-wall.path systemd-ask-password-console.path cryptsetup.target \
    lvm2-monitor.service lvm2-lvmpolld.socket dm-event.socket blk-availability.service \
    keyboard-setup.service console-setup.service procps.service kmod-static-nodes.service \
    modprobe@loop.service modprobe@dm_mod.service systemd-remount-fs.service systemd-tmpfiles-setup-dev.service \
    systemd-tmpfiles-setup-dev-early.service systemd-network-generator.service systemd-udev-load-credentials.service
do
    ln -sf /dev/null "/etc/systemd/system/$unit"
done
# Debian's rule starts iscsid.service for every iSCSI disk (LP 1802354): a second iscsid beside one that a test
# started directly, and one behind the back of a test that stopped it.
ln -sf /dev/null /etc/udev/rules.d/70-open-iscsi.rules
# Nor does a disk with LVM's signature start pvscan and vgchange; the sample backend activates what it makes.
ln -sf /dev/null /etc/udev/rules.d/69-lvm.rules
# Nothing to generate: no fstab, no LVM at boot, no kernel-argument mounts. Each generator is a process at boot.
rm -rf /usr/lib/systemd/system-generators/* /lib/systemd/system-generators/*
ln -sf /etc/systemd/system/lab.target /etc/systemd/system/default.target

# --- identity and mount points (the machine id is a kernel argument: mmdebstrap empties the file) ---------------
echo lab >/etc/hostname
: >/etc/fstab
# rtslib refuses to work without its state folder.
mkdir -p /stage /results /lab /srv/volumes /etc/target /etc/rtslib-fb-target
chmod 700 /etc/iscsi

# --- small things: no docs, no package lists, no boot files (they travel beside the image) ----------------------
rm -rf /usr/share/doc /usr/share/man /usr/share/info /usr/share/locale /usr/share/zoneinfo /usr/share/bash-completion \
    /var/lib/apt/lists /var/cache/apt /var/cache/debconf/*-old /boot/initrd.img* /usr/lib/udev/hwdb.d /usr/lib/udev/hwdb.bin \
    /usr/share/perl /usr/share/gcc /var/log/*.log

# Without these every Python start compiles what it imports, and the overlay forgets it at power-off.
python3 -m compileall -q /usr/lib/python3 /usr/lib/python3.* >/dev/null || :
