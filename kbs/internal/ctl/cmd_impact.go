package ctl

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/client/admin"
)

// impact is one object that guests have got.
type impact struct {
	Object  string    `json:"object"`
	Version int64     `json:"version,omitempty"` // the newest that one of them has
	Guests  int       `json:"guests"`
	Last    time.Time `json:"last"` // when one of them got it with a new token
}

func (c *cli) impactCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "impact claim/PATH=VALUE | guest/ID | resource/REPO/TYPE/TAG",
		Short: "Say what guests have got, and so what must be changed",
		Long: `Say which objects were given to guests whose evidence shows a claim, or to one
guest, within the last day: what must be changed if the chip, the measurement or
the guest is bad. Of a resource it says how many guests have it. Older releases
are in the audit log.`,
		Example: `  kbsctl impact claim/snp.chip_id=8fab...
  kbsctl impact claim/snp.measurement=00ff... -o json
  kbsctl impact resource/prod/image/app`,
		Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			what, name := cutName(args[0])
			var q admin.LeaseQuery
			switch {
			case what == "claim" && strings.Contains(name, "="):
				q.Claim = name
			case what == "guest" && name != "":
				q.Guest = name
			case what == "resource" && name != "":
				q.Object = args[0]
			default:
				return usagef("impact takes claim/PATH=VALUE, guest/ID or resource/REPO/TYPE/TAG, not %q", args[0])
			}
			a, err := c.client()
			if err != nil {
				return err
			}
			defer a.Close()
			all, err := a.Leases(cmd.Context(), q, 0)
			if err != nil {
				return doing(err, "impact %s", args[0])
			}
			return c.printImpact(args[0], impacts(all))
		},
	}
}

func (c *cli) printImpact(of string, all []impact) error {
	if c.flags.output != "table" {
		return c.printData(all)
	}
	if len(all) == 0 {
		c.warnf("%s has got nothing within the last day", clean(of))
		return nil
	}
	var rows []object
	for _, i := range all {
		version := ""
		if i.Version != 0 {
			version = strconv.FormatInt(i.Version, 10)
		}
		rows = append(rows, object{kind: "impact", name: i.Object, data: i, row: []string{i.Object, version, strconv.Itoa(i.Guests), age(i.Last, c.now())}})
	}
	return c.print(rows, []string{"OBJECT", "VERSION", "GUESTS", "LAST"}, true)
}

// impacts joins leases of one object.
func impacts(all []api.Lease) []impact {
	slices.SortFunc(all, func(a, b api.Lease) int { return cmp.Compare(a.Object, b.Object) })
	out := []impact{}
	for _, l := range all {
		if n := len(out); n == 0 || out[n-1].Object != l.Object {
			out = append(out, impact{Object: l.Object})
		}
		i := &out[len(out)-1]
		i.Guests++
		i.Version = max(i.Version, l.Version)
		if l.Renewed.After(i.Last) {
			i.Last = l.Renewed
		}
	}
	return out
}
