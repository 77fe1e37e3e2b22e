package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/vouchsafe-cc/vouchsafe/given"

	"github.com/vouchsafe-cc/vouchsafe/rootfs/internal/build"
	"github.com/vouchsafe-cc/vouchsafe/rootfs/internal/expected"
	"github.com/vouchsafe-cc/vouchsafe/rootfs/internal/manifest"
	"github.com/vouchsafe-cc/vouchsafe/rootfs/internal/publish"
	"github.com/vouchsafe-cc/vouchsafe/rootfs/internal/signing"
)

// publishFlags say for what and by whom an image is published.
type publishFlags struct {
	key, keyID, id, ends    string
	unsigned                bool
	firmware, edition       string
	platforms, memory, cpus []string
	vcpus                   []int
}

func (f *publishFlags) add(cmd *cobra.Command) {
	s := cmd.Flags()
	s.StringVar(&f.key, "key", "", "`FILE` with the private key that signs: PEM, PKCS#8; Ed25519, P-256 or P-384")
	s.StringVar(&f.keyID, "key-id", "", "`NAME` of the signer at the broker, a hint for it")
	s.BoolVar(&f.unsigned, "insecure-unsigned", false, "make the documents without a signature: nobody can tell whose they are")
	s.StringVar(&f.id, "id", "", "`NAME` of the document of reference values: the next one of that name takes its place (default that of the recipe)")
	s.StringVar(&f.ends, "ends", "", "`TIME` (RFC 3339) after which the reference values count no more")
	s.StringVar(&f.firmware, "firmware", "", "`FILE` with a firmware to predict for, beside those of the recipe")
	s.StringVar(&f.edition, "edition", "", "`TAG` of edk2 that --firmware was built from: see 'measure predict --help'")
	s.StringSliceVar(&f.platforms, "platform", []string{"snp", "tdx", "tpm"}, "`PLATFORMS` to predict for under --firmware")
	s.IntSliceVar(&f.vcpus, "vcpus", nil, "`NUMBERS` of vCPUs to predict for")
	s.StringSliceVar(&f.memory, "memory", nil, "`SIZES` of memory to predict for, for example 2G,8G")
	s.StringSliceVar(&f.cpus, "cpu", nil, "processor `MODELS` of QEMU to predict for")
	cmd.MarkFlagsMutuallyExclusive("key", "insecure-unsigned")
}

// options reads what needs no image.
func (f *publishFlags) options() (o publish.Options, err error) {
	if f.key == "" && !f.unsigned {
		return o, errors.New("--key is missing: the key that signs the reference values and the provenance. " +
			"One is made by: openssl genpkey -algorithm ed25519 -out release.key (--insecure-unsigned makes them without a signature)")
	}
	if f.key != "" {
		if o.Key, err = signing.ReadKey(f.key); err != nil {
			return o, err
		}
	}
	o.KeyID, o.Release = f.keyID, expected.Release{ID: f.id}
	if f.ends != "" {
		if o.Release.Ends, err = time.Parse(time.RFC3339, f.ends); err != nil {
			return o, fmt.Errorf("--ends %q is no time like 2027-01-31T12:00:00Z", f.ends)
		}
	}
	return o, nil
}

// complete adds what the recipe says.
func (f *publishFlags) complete(ctx context.Context, o *publish.Options, in build.Inputs, from build.Packages) error {
	if o.Release.ID == "" {
		o.Release.ID = in.Recipe.Name
	}
	for _, fw := range in.Recipe.Firmware {
		content, err := build.Firmware(ctx, fw, in.Lock, from)
		if err != nil {
			return fmt.Errorf("firmware %s: %w", fw.Name, err)
		}
		o.Firmware = append(o.Firmware, publish.Firmware{Firmware: manifest.Firmware{Name: fw.Name, Edition: fw.Edition, Platforms: fw.Platforms}, Content: content})
	}
	if f.firmware != "" {
		content, err := given.File(f.firmware, maxFirmware)
		if err != nil {
			return err
		}
		o.Firmware = append(o.Firmware, publish.Firmware{Firmware: manifest.Firmware{Name: "given", Edition: f.edition, Platforms: f.platforms}, Content: content})
	}
	o.Machine = manifest.Machine{VCPUs: in.Recipe.Machine.VCPUs, CPUs: in.Recipe.Machine.CPUs}
	memory := in.Recipe.Machine.Memory
	if len(f.vcpus) > 0 {
		o.Machine.VCPUs = f.vcpus
	}
	if len(f.cpus) > 0 {
		o.Machine.CPUs = f.cpus
	}
	if len(f.memory) > 0 {
		memory = f.memory
	}
	for _, s := range memory {
		n, err := expected.ParseMemory(s)
		if err != nil {
			return fmt.Errorf("memory: %w", err)
		}
		o.Machine.Memory = append(o.Machine.Memory, n)
	}
	return nil
}

// maxFirmware bounds a firmware, in bytes.
const maxFirmware = 64 << 20
