package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/vouchsafe-cc/vouchsafe/measure"
)

const inspectHelp = `Inspect shows what a file says, without asking whether it is true. FILE is
evidence in JSON as the KBS protocol carries it, a raw report or quote, a
certificate, a revocation list, the event log of a boot, an HCL report of Azure
or the bare quote of a TPM; - is stdin.

The names of claims are those that the broker's policies use. Nothing is
verified here: anyone can write such a file. Use 'measure verify' for that.`

// inspection is what a file says.
type inspection struct {
	claims measure.Claims // nil for a file that claims nothing
	more   map[string]any // beside the claims, in JSON
	tables []table        // beside the claims, for people
}

// An inspector decodes files that are no evidence.
type inspector struct {
	kind       string
	recognises func(raw []byte) bool
	inspect    func(raw []byte) (inspection, error)
}

// inspectors lists what can be inspected beside the evidence of rooms.
func inspectors() []inspector {
	return []inspector{certificateInspector(), quoteInspector(), hclInspector(), logInspector()}
}

func (c *cli) inspectCommand() *cobra.Command {
	output, rooms := oneOf("table", "json"), c.rooms()
	var platform string
	cmd := &cobra.Command{
		Use:     "inspect FILE",
		Short:   "Show what a file says, without verifying it",
		Long:    inspectHelp,
		Example: "  measure inspect evidence.json\n  measure inspect report.bin -o json\n  measure inspect chain.pem",
		Args:    cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			return c.inspect(rooms, platform, args[0], output.value)
		},
	}
	cmd.Flags().StringVar(&platform, "platform", "", "`PLATFORM` of evidence, where it does not show: "+strings.Join(platformNames(rooms), ", "))
	cmd.Flags().VarP(output, "output", "o", "output format")
	return cmd
}

func (c *cli) inspect(rooms []room, platform, name, output string) error {
	raw, err := c.readFile(name)
	if err != nil {
		return err
	}
	kind, found, err := look(rooms, platform, raw)
	if err != nil {
		return unreadable(name, err)
	}
	_, _ = fmt.Fprintln(c.err, "measure: nothing of this is verified")
	if output == "json" {
		all := map[string]any{"verified": false}
		for k, v := range found.more {
			all[k] = v
		}
		if found.claims != nil {
			all["platform"], all["claims"] = kind, found.claims
		} else {
			all["kind"] = kind
		}
		return c.printJSON(all)
	}
	return c.printInspection(found)
}

// printInspection prints tables for a person.
func (c *cli) printInspection(found inspection) error {
	var b strings.Builder
	tables := found.tables
	if found.claims != nil {
		tables = append([]table{claimTable(found.claims)}, tables...)
	}
	for i, t := range tables {
		if i > 0 {
			b.WriteByte('\n')
		}
		t.print(&b)
	}
	_, err := io.WriteString(c.out, b.String())
	return err
}

func look(rooms []room, platform string, raw []byte) (string, inspection, error) {
	if platform == "" {
		for _, i := range inspectors() {
			if i.recognises(raw) {
				found, err := i.inspect(raw)
				return i.kind, found, err
			}
		}
	}
	r, err := roomOf(rooms, platform, raw)
	if err != nil {
		if platform == "" {
			err = errors.New("this is nothing that is known: no evidence, certificate, revocation list or event log; --platform names a platform, and then tells what is wrong")
		}
		return "", inspection{}, err
	}
	ev, err := r.read(raw)
	if err != nil {
		return "", inspection{}, err
	}
	found, err := r.inspect(ev)
	return string(r.platform), found, err
}
