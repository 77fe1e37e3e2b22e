package main

import (
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/spf13/cobra"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/audit/ocsf"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/config"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/metrics"
	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/server"
)

// pages are the parts of docs/reference that only the broker's own packages
// can write.
var pages = map[string]func() (string, error){
	"openapi.json": func() (string, error) { return string(server.Document()), nil },
	"metrics.md":   func() (string, error) { return metrics.Page(), nil },
	"api.md":       func() (string, error) { return server.Describe(server.Routes()).Page(), nil },
	"config.md":    config.Page,
	"config.schema.json": func() (string, error) {
		raw, err := config.Schema()
		return string(raw), err
	},
	"audit.md":                func() (string, error) { return ocsf.Page(), nil },
	"audit-event.schema.json": func() (string, error) { return string(ocsf.Schema()), nil },
}

// referenceCommand prints one of the pages, for `make generate`.
func (p *program) referenceCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "reference PAGE",
		Short:  "Print a page of the reference",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			page, ok := pages[args[0]]
			if !ok {
				return fmt.Errorf("%w: there is no page %q, only %q", errUsage, args[0], slices.Sorted(maps.Keys(pages)))
			}
			text, err := page()
			if err != nil {
				return err
			}
			_, err = io.WriteString(p.io.out, text)
			return err
		},
	}
}
