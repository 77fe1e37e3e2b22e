package ctl

import (
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/vouchsafe-cc/vouchsafe/given"
	"github.com/vouchsafe-cc/vouchsafe/image/registry"
	"github.com/vouchsafe-cc/vouchsafe/image/trust"
)

// lookasideFlags say where GPG signatures lie.
type lookasideFlags struct{ path string }

func (f *lookasideFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.path, "registries-d", "",
		"`PATH` of a registries.d file, or of a directory of them (*.yaml), that says where GPG signatures lie (default: nowhere)")
}

// read returns nil without the flag: what stands in this machine's
// /etc/containers is not what a guest sees.
func (f *lookasideFlags) read(cfg registry.Config) (*trust.Lookaside, error) {
	if f.path == "" {
		return nil, nil
	}
	files := []string{f.path}
	if info, err := os.Stat(f.path); err == nil && info.IsDir() {
		if files, err = filepath.Glob(filepath.Join(f.path, "*.yaml")); err != nil {
			return nil, usagef("registries.d: %w", err)
		}
	}
	var docs [][]byte
	for _, name := range files {
		b, err := given.File(name, maxConfig)
		if err != nil {
			return nil, usagef("registries.d: %w", err)
		}
		docs = append(docs, b)
	}
	aside, err := trust.ParseLookaside(docs...)
	if err != nil {
		return nil, usagef("%s: %w", f.path, err)
	}
	client, err := registry.NewClient(cfg)
	if err != nil {
		return nil, usagef("%w", err)
	}
	aside.Client, aside.InsecureHTTPHosts = trust.NewLookasideClient(client.Transport()), cfg.InsecureHTTPHosts
	return aside, nil
}
