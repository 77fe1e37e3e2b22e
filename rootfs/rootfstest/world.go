package rootfstest

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/measure/boot/boottest"
	"github.com/vouchsafe-cc/vouchsafe/measure/ovmf/ovmftest"
)

const release = "6.12.0-test"

// Recipe asks for what [Write] makes packages of.
const Recipe = `name = "guest"

[kernel]
package = ["linux-image-test"]
modules = ["dm_mod", "-absent"]
later = ["dm_verity"]
cmdline = "console=ttyS0 quiet"

[agent]
path = "/usr/bin/guest-agent"

[[program]]
package = "runtime"
files = ["/usr/bin/runtime"]

[[data]]
package = "certificates"
files = ["/usr/share/certificates/*.crt"]
join = "/etc/ssl/certs/ca-certificates.crt"

[uki]
package = "stub"
file = "/usr/lib/linux.efi.stub"

[[firmware]]
name = "ovmf"
package = "firmware"
file = "/usr/share/OVMF.fd"
edition = "202502"
platforms = ["snp", "tpm"]

[machine]
vcpus = [1, 2]
memory = ["512M"]
`

// Packages are those of the recipe, by their names.
func Packages() map[string][]byte {
	modules := "/lib/modules/" + release + "/"
	return map[string][]byte{
		"linux-image-test": Deb(
			File{Path: "/boot/vmlinuz-" + release, Content: boottest.Kernel([]byte("kernel"))},
			File{Path: modules + "modules.builtin", Content: []byte("kernel/fs/ext4/ext4.ko\n")},
			File{Path: modules + "kernel/drivers/md/dm-verity.ko", Content: Module("name=dm_verity", "depends=dm-mod,ext4")},
			File{Path: modules + "kernel/fs/erofs/erofs.ko", Content: Module("name=erofs", "depends=")},
			File{Path: modules + "kernel/drivers/md/dm-mod.ko", Content: Module("name=dm_mod", "depends=", "softdep=pre: not-there")},
			File{Path: modules + "kernel/drivers/net/unused.ko", Content: Module("name=unused")}),
		"runtime": Deb(
			File{Path: "/usr/bin/runtime", Mode: 0o755, Content: Program("/lib64/ld-linux-x86-64.so.2", "liba.so.1", "libc.so.6")},
			File{Path: "/usr/bin/helper.sh", Mode: 0o755, Content: []byte("#!/bin/sh\n")},
			File{Path: "/usr/share/doc/runtime/copyright", Content: []byte("free")}),
		"liba": Deb(
			File{Path: "/usr/lib/x86_64-linux-gnu/liba.so.1", Target: "liba.so.1.2"},
			File{Path: "/usr/lib/x86_64-linux-gnu/liba.so.1.2", Content: Program("", "libc.so.6")},
			File{Path: "/usr/lib/x86_64-linux-gnu/libunused.so.1", Content: Program("", "libc.so.6")}),
		"libc": Deb(
			File{Path: "/lib/x86_64-linux-gnu/libc.so.6", Mode: 0o755, Content: Program("", "ld-linux-x86-64.so.2")},
			File{Path: "/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2", Mode: 0o755, Content: Program("")},
			File{Path: "/lib64/ld-linux-x86-64.so.2", Target: "/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"}),
		"certificates": Deb(
			File{Path: "/usr/share/certificates/b.crt", Content: []byte("second")},
			File{Path: "/usr/share/certificates/a.crt", Content: []byte("first\n")}),
		"stub":     Deb(File{Path: "/usr/lib/linux.efi.stub", Content: stub()}),
		"firmware": Deb(File{Path: "/usr/share/OVMF.fd", Content: ovmftest.Build(ovmftest.Default())}),
	}
}

// stub is an EFI stub of systemd's with room in its headers.
func stub() []byte {
	raw := boottest.Image(boottest.Section{Name: ".text", Data: []byte("stub")},
		boottest.Section{Name: ".sdmagic", Data: []byte("#### LoaderInfo: systemd-stub 252.39 ####")})
	pe := binary.LittleEndian.Uint32(raw[0x3c:])
	binary.LittleEndian.PutUint32(raw[pe+24+36:], 512) // FileAlignment
	return raw
}

// Write writes recipe.toml, the packages, guest.lock that pins them where they
// are, and a static agent that does nothing.
func Write(ctx context.Context, dir string) error {
	packages := filepath.Join(dir, "packages")
	if err := os.MkdirAll(packages, 0o755); err != nil {
		return err
	}
	var lock strings.Builder
	lock.WriteString("schema = 1\nkernel = 'linux-image-test'\n")
	all := Packages()
	for _, name := range slices.Sorted(maps.Keys(all)) {
		raw := all[name]
		file := filepath.Join(packages, name+".deb")
		if err := os.WriteFile(file, raw, 0o644); err != nil {
			return err
		}
		fmt.Fprintf(&lock, "\n[[package]]\nname = '%s'\nversion = '1.0-1'\narchitecture = 'amd64'\nsource = '%s'\nsize = %d\nsha256 = '%x'\nurl = 'file://%s'\n",
			name, name, len(raw), sha256.Sum256(raw), file)
	}
	for name, text := range map[string]string{"recipe.toml": Recipe, "guest.lock": lock.String(), "agent/main.go": "package main\n\nfunc main() {}\n", "agent/go.mod": "module agent\n\ngo 1.26\n"} {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			return err
		}
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w -buildid=", "-o", filepath.Join(dir, "guest-agent"), ".")
	cmd.Dir = filepath.Join(dir, "agent")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off", "GOFLAGS=-mod=mod")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w: %s", err, out)
	}
	return nil
}
