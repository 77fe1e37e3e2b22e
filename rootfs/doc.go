// Package rootfs will build the guest image: kernel, agent and a verity root,
// reproducibly, with the measurements that it will have on each platform. The
// room is empty yet: there is no command, so that nothing pretends to work.
package rootfs
