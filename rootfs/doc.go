// Package rootfs builds the guest image: a kernel, the agent as PID 1, an OCI
// runtime and nothing else, from packages that a lock file pins by their hashes,
// as the same bytes wherever and whenever it is built.
//
// # What a build leaves
//
// `rootfs build` writes one form of the image into a directory:
//
//	initrd   vmlinuz, initrd.img, cmdline
//	verity   vmlinuz, initrd.img, cmdline, rootfs.img, kernel_verity_params
//	uki      guest.efi, cmdline
//	disk     disk.img, guest.efi, cmdline
//	verity-disk  disk.img, guest.efi, cmdline, kernel_verity_params
//
// cmdline is one line, the kernel's whole command line; the newline at its end
// does not count. initrd.img is one cpio archive (newc) under LZ4, or zstd. rootfs.img
// is a disk of two MBR partitions, the EROFS root and the hash tree of dm-verity
// (version 1, SHA-256, blocks of 4096 bytes, no superblock);
// kernel_verity_params is the line that Kata's option of this name takes. The
// command line of that form has it as the kernel's own dm-mod.create parameter,
// with root=/dev/dm-0: a kernel with CONFIG_DM_INIT mounts the root by itself
// and needs no initrd; for others the initrd is what does as the parameter says.
// guest.efi is a unified kernel image of the initrd form's parts, signed for Secure
// Boot where a key is given. disk.img is a disk with a GUID partition table that a
// firmware starts: an EFI partition with guest.efi in it as EFI/BOOT/BOOTX64.EFI,
// and in the last form the root and its hash tree behind it, as in the verity form.
//
// # What is in the guest
//
// The same tree lies in the initramfs of the initrd form, unpacked by the kernel,
// and in the root of the verity form:
//
//	/init, /sbin/init        -> usr/bin/guest-agent
//	/usr/bin/guest-agent     static, started as PID 1 without arguments
//	/usr/bin/crun            with the shared libraries that it needs
//	/usr/lib/modules/RELEASE/load    modules that are loaded before the agent serves
//	/usr/lib/modules/RELEASE/later   those that are loaded while it does
//	/usr/lib/modules/RELEASE/...     the modules, not compressed
//	/etc/ssl/certs/ca-certificates.crt
//	/etc/hostname /etc/hosts /etc/passwd /etc/group, an empty /etc/resolv.conf
//	/proc /sys /dev /run /tmp /var /mnt, empty
//
// Both lists have an absolute path a line, in the order in which to load them; one
// after "-" may fail to load, for example for want of a processor feature. /bin,
// /sbin, /lib and /lib64 are links into /usr. The initrd of the verity form has
// /init, the modules that open the root, and the empty directories.
package rootfs
