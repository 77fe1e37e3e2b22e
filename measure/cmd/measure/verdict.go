package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/vouchsafe-cc/vouchsafe/measure"
)

// printVerdict writes a verdict for people: what it says, each check, each
// finding, and the claims.
func printVerdict(out io.Writer, v measure.Verdict) error {
	var b strings.Builder
	root := v.Root.Name
	switch {
	case root == "":
		root = "none that is trusted"
	case v.Root.Simulated:
		root += "   SIMULATED: no hardware vouches for this"
	}
	fmt.Fprintf(&b, "evidence:     %s\nplatform:     %s\nroot:         %s\n\n", word(v), v.Platform, root)
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "CHECK\tOUTCOME\tREASON")
	for _, c := range v.Checks {
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\n", c.Name, c.Outcome, plain(c.Reason))
	}
	_ = w.Flush() // into memory
	for _, c := range v.Checks {
		for _, f := range c.Findings {
			fmt.Fprintf(&b, "\n%s: %s\n  seen    %s\n", c.Name, plain(f.Field), plain(f.Seen))
			for _, want := range f.Wanted {
				fmt.Fprintf(&b, "  wanted  %s\n", plain(want))
			}
		}
	}
	b.WriteByte('\n')
	claimTable(v.Claims).print(&b)
	_, err := io.WriteString(out, b.String())
	return err
}

// word is what a verdict comes to.
func word(v measure.Verdict) string {
	if v.Err() != nil {
		return "REFUSED"
	}
	return "verified"
}

// table is one of what is printed for people.
type table struct {
	head []string
	rows [][]string
}

func (t table) print(out io.Writer) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, strings.Join(t.head, "\t"))
	for _, row := range t.rows {
		cells := make([]string, len(row))
		for i, cell := range row {
			cells[i] = plain(cell)
		}
		_, _ = fmt.Fprintln(w, strings.Join(cells, "\t"))
	}
	_ = w.Flush() // into memory
}

// claimTable shows claims under the names that policies write, nested ones
// with a dot.
func claimTable(c measure.Claims) table {
	t := table{head: []string{"CLAIM", "VALUE"}}
	t.add("", map[string]any(c))
	return t
}

func (t *table) add(prefix string, claims map[string]any) {
	for _, name := range slices.Sorted(maps.Keys(claims)) {
		switch v := claims[name].(type) {
		case measure.Claims:
			t.add(prefix+name+".", v)
		case map[string]any:
			t.add(prefix+name+".", v)
		case []any:
			t.rows = append(t.rows, []string{prefix + name, listed(v)})
		default:
			t.rows = append(t.rows, []string{prefix + name, fmt.Sprint(v)})
		}
	}
}

// listed shows a list on one line; of a list of objects, as events are, only
// how long it is.
func listed(list []any) string {
	for _, v := range list {
		if _, ok := v.(measure.Claims); ok {
			return fmt.Sprintf("%d entries; -o json shows them", len(list))
		}
	}
	return fmt.Sprint(list)
}
