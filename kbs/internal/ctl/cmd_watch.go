package ctl

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/client/admin"
)

// What watch says of an object, in the words that kubectl has for it.
const (
	eventAdded    = "ADDED"
	eventModified = "MODIFIED"
	eventDeleted  = "DELETED"
)

// leastInterval keeps a slip of the finger from being a load.
const leastInterval = 10 * time.Millisecond

func (c *cli) watchCommand() *cobra.Command {
	var o listOptions
	var every time.Duration
	cmd := &cobra.Command{
		Use:   "watch KIND [NAME...]",
		Short: "Show objects, and then each change of one",
		Long: `Show objects, by name or all of a kind, and then each one that comes, changes or
goes, until it is interrupted. -o json writes one event a line, with the object
as it is then, or as it was before it went.

It asks the broker again and again: what changes twice between two looks is one
change. Of audit entries, kbsctl audit tail -f shows every one.`,
		Example: `  kbsctl watch ticketgroups
  kbsctl watch approvals -o json | jq -r 'select(.type == "ADDED").object.id'
  kbsctl get resources -w --prefix prod/`,
		Args:              minArgs(1),
		ValidArgsFunction: c.completeObjects(false),
		RunE: func(cmd *cobra.Command, args []string) error {
			k, names, err := target(args)
			if err != nil {
				return err
			}
			return c.watch(cmd.Context(), k, names, o, every)
		},
	}
	o.flags(cmd)
	everyFlag(cmd, &every)
	return cmd
}

func everyFlag(cmd *cobra.Command, every *time.Duration) {
	spanFlag(cmd.Flags(), every, "every", time.Second, "ask again after this `DURATION`")
}

// watched is what a watch showed last.
type watched struct {
	object

	raw []byte // its data, by which a change is noticed
}

// stream is a table without an end.
type stream struct{ widths []int }

// watch shows changes until ctx ends, which is no error: somebody had enough.
func (c *cli) watch(ctx context.Context, k kind, names []string, o listOptions, every time.Duration) error {
	if err := c.checkWatch(k, o, every); err != nil {
		return err
	}
	a, err := c.client()
	if err != nil {
		return err
	}
	defer a.Close()
	var shown map[string]watched
	var out stream
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		now, order, err := c.look(ctx, a, k, names, o, shown)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return doing(err, "watch %s", k.name)
		}
		if err := out.show(c, k, shown, now, order); err != nil {
			return err
		}
		shown = now
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
	}
}

func (c *cli) checkWatch(k kind, o listOptions, every time.Duration) error {
	switch {
	case every < leastInterval:
		return usagef("--every must be at least %s", leastInterval)
	case c.flags.output == "manifest" || c.flags.output == "yaml":
		return usagef("a watch has no end, and %s needs one", c.flags.output).hint("-o json")
	}
	return o.check(k)
}

// look asks once. What was named must be there at first, and may go later.
func (c *cli) look(ctx context.Context, a *admin.Client, k kind, names []string, o listOptions, before map[string]watched) (map[string]watched, []string, error) {
	var found []object
	if len(names) == 0 {
		all, err := k.list(ctx, c, a, o)
		if err != nil {
			return nil, nil, err
		}
		found = all
	}
	for _, name := range names {
		one, err := k.get(ctx, c, a, name)
		if fault.CodeOf(err) == fault.NotFound && before != nil {
			continue
		}
		if err != nil {
			return nil, nil, err
		}
		found = append(found, one)
	}
	now := make(map[string]watched, len(found))
	var order []string
	for _, one := range found {
		raw, err := json.Marshal(one.data)
		if err != nil {
			return nil, nil, err
		}
		now[one.name] = watched{one, raw}
		order = append(order, one.name)
	}
	return now, order, nil
}

// show prints what lies between two looks; nil is before the first.
func (s *stream) show(c *cli, k kind, before, now map[string]watched, order []string) error {
	var gone []string
	for name := range before {
		if _, is := now[name]; !is {
			gone = append(gone, name)
		}
	}
	slices.Sort(gone)
	var events []string
	var about []object
	for _, name := range gone {
		events, about = append(events, eventDeleted), append(about, before[name].object)
	}
	for _, name := range order {
		was, had := before[name]
		switch {
		case !had:
			events, about = append(events, eventAdded), append(about, now[name].object)
		case !bytes.Equal(was.raw, now[name].raw):
			events, about = append(events, eventModified), append(about, now[name].object)
		}
	}
	if len(about) == 0 && before != nil {
		return nil
	}
	return s.print(c, k, events, about)
}

func (s *stream) print(c *cli, k kind, events []string, about []object) error {
	switch c.flags.output {
	case "name":
		return c.print(about, nil, true)
	case "json":
		for i, o := range about {
			raw, err := json.Marshal(struct {
				Type   string `json:"type"`
				Object any    `json:"object"`
			}{events[i], o.data})
			if err != nil {
				return err
			}
			if err := c.printf("%s\n", escapeUnprintable(raw)); err != nil {
				return err
			}
		}
		return nil
	}
	rows := make([][]string, len(about))
	for i, o := range about {
		rows[i] = append([]string{events[i]}, o.row...)
	}
	header := append([]string{eventHeader}, k.header...)
	s.align(append(rows, header))
	err := c.printTable(header, rows)
	c.flags.noHeaders = true // once is enough
	return err
}

// eventHeader is as wide as the longest event.
const eventHeader = "EVENT   "

// align makes the cells of a column as wide as any before was: what is printed
// later stands below what was printed earlier.
func (s *stream) align(rows [][]string) {
	for _, row := range rows {
		for i, text := range row[:len(row)-1] {
			text = cell(text)
			if i == len(s.widths) {
				s.widths = append(s.widths, 0)
			}
			s.widths[i] = max(s.widths[i], utf8.RuneCountInString(text))
			row[i] = text
		}
	}
	for _, row := range rows {
		for i, text := range row[:len(row)-1] {
			row[i] = fmt.Sprintf("%-*s", s.widths[i], text)
		}
	}
}
