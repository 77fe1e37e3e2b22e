package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/vouchsafe-cc/vouchsafe/measure/predict"

	"github.com/vouchsafe-cc/vouchsafe/rootfs/internal/build"
	"github.com/vouchsafe-cc/vouchsafe/rootfs/internal/prove"
	"github.com/vouchsafe-cc/vouchsafe/rootfs/internal/publish"
)

const inspectHelp = `Inspect tells what the documents beside an image say of it: its form, its command
line, the packages that it was taken from, and what guests measure to. With --files
it lists what is in the guest. It judges nothing: 'rootfs verify' does.`

func (c *cli) inspectCommand() *cobra.Command {
	var listFiles, asJSON bool
	cmd := &cobra.Command{
		Use:   "inspect DIR",
		Short: "Tell what is in an image",
		Long:  inspectHelp,
		Args:  cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			image, err := openImage(args[0])
			if err != nil {
				return err
			}
			switch {
			case asJSON:
				_, err := c.out.Write(image.Files[publish.FileManifest])
				return err
			case listFiles:
				_, err := fmt.Fprint(c.out, listing(image))
				return err
			}
			text, err := summary(image)
			if err != nil {
				return err
			}
			_, err = fmt.Fprint(c.out, text)
			return err
		},
	}
	cmd.Flags().BoolVar(&listFiles, "files", false, "list every file of the guest, and which package it is from")
	cmd.Flags().BoolVar(&asJSON, "json", false, "write the manifest")
	cmd.MarkFlagsMutuallyExclusive("files", "json")
	return cmd
}

func listing(image *prove.Image) string {
	var b strings.Builder
	for _, where := range slices.Sorted(maps.Keys(image.Manifest.Contents)) {
		fmt.Fprintf(&b, "%s:\n", where)
		for _, f := range image.Manifest.Contents[where] {
			name := f.Path
			if f.Target != "" {
				name += " -> " + f.Target
			}
			fmt.Fprintf(&b, "  %s %10d  %-64s %s\n", f.Mode, f.Size, name, f.Origin)
		}
	}
	return b.String()
}

func summary(image *prove.Image) (string, error) {
	m := image.Manifest
	var b strings.Builder
	fmt.Fprintf(&b, "name     %s\nform     %s\nkernel   %s\ncmdline  %s", m.Name, m.Form, m.Kernel, image.Files[build.FileCmdline])
	b.WriteString("files\n")
	for _, name := range []string{build.FileKernel, build.FileInitrd, build.FileDisk, build.FileUKI, build.FileBootable} {
		if raw, ok := image.Files[name]; ok {
			fmt.Fprintf(&b, "  %-12s %9d bytes  sha256 %s\n", name, len(raw), build.Subjects(map[string][]byte{name: raw})[0].Digest["sha256"])
		}
	}
	b.WriteString("packages\n")
	for _, p := range m.Packages {
		fmt.Fprintf(&b, "  %s %s\n", p.Name, p.Version)
	}
	for _, f := range m.Firmware {
		d, err := predict.ParseDocument(image.Files[publish.PredictionFile(f.Name)])
		if err != nil {
			return "", fmt.Errorf("%s: %w", publish.PredictionFile(f.Name), err)
		}
		measured(&b, f.Name, d)
	}
	return b.String(), nil
}

// measured writes the reference values of a prediction, as policies name them.
func measured(b *strings.Builder, firmware string, d *predict.Document) {
	fmt.Fprintf(b, "measures, under firmware %s\n", firmware)
	for _, v := range d.ReferenceValues() {
		var list []string
		if json.Unmarshal(v.Value, &list) != nil {
			list = []string{string(v.Value)}
		}
		for i, one := range list {
			name := v.Name
			if i > 0 {
				name = ""
			}
			fmt.Fprintf(b, "  %-24s %s\n", name, one)
		}
	}
	for _, u := range d.Unpredicted {
		if u.Register == "" {
			fmt.Fprintf(b, "  %s is not predicted: %s\n", u.Platform, strings.Join(u.Reasons, "; "))
		}
	}
}
