package ctl

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/fault"
	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
	"github.com/vouchsafe-cc/vouchsafe/kbs/client/admin"
)

func masterKeyKind() kind {
	return kind{
		name: "masterkey", aliases: []string{"masterkeys"},
		header: []string{"ID", "STATE", "AGE", "RETIRED", "MOVED"},
		list: func(ctx context.Context, c *cli, a *admin.Client, o listOptions) ([]object, error) {
			all, err := a.MasterKey(ctx)
			if err != nil {
				return nil, err
			}
			return listed(all.Keys, o, func(k api.MasterKeyState) object { return c.masterKeyObject(k, all.Rewrap) }), nil
		},
		get: func(ctx context.Context, c *cli, a *admin.Client, name string) (object, error) {
			all, err := a.MasterKey(ctx)
			if err != nil {
				return object{}, err
			}
			for _, k := range all.Keys {
				if k.ID == name {
					return c.masterKeyObject(k, all.Rewrap), nil
				}
			}
			return object{}, fault.Newf(fault.NotFound, "the broker's store never was under %s", name)
		},
		schema: masterKeySchema,
	}
}

const masterKeySchema = `kind: MasterKey
  A key that the broker's store is or was under: all values and the broker's own
  keys are sealed under it. It cannot be applied; kbsctl rotate masterkey puts
  another one in its place.

state
  current    new values are under it
  opening    some values may still be under it
  retired    nothing is under it any more: its file may be taken away`

// masterKeyOut is one key as -o json has it: the current one with the walk.
type masterKeyOut struct {
	api.MasterKeyState
	Rewrap *api.Rewrap `json:"rewrap,omitempty"`
}

func (c *cli) masterKeyObject(k api.MasterKeyState, walk *api.Rewrap) object {
	out := masterKeyOut{MasterKeyState: k}
	if walk != nil && walk.To == k.ID {
		out.Rewrap = walk
	}
	return object{
		kind: "masterkey", name: k.ID, data: out,
		row: []string{k.ID, k.State, age(k.Since, c.now()), age(k.Retired, c.now()), walkText(out.Rewrap)},
		describe: func(s *sheet) {
			s.line("masterkey", k.ID)
			s.line("state", k.State)
			s.line("since", stamp(k.Since, c.now()))
			if !k.Retired.IsZero() {
				s.line("retired", stamp(k.Retired, c.now()))
			}
			if out.Rewrap == nil {
				return
			}
			s.line("moved", walkText(out.Rewrap))
			s.line("pass", fmt.Sprintf("%d, %d records looked at", walk.Pass, walk.Looked))
			s.line("failed", strings.Join(walk.FailedKeys, "\n"))
		},
	}
}

func walkText(w *api.Rewrap) string {
	switch {
	case w == nil:
		return ""
	case w.Failed > 0:
		return fmt.Sprintf("%d records, %d CANNOT BE OPENED", w.Moved, w.Failed)
	case w.Finished.IsZero():
		return fmt.Sprintf("%d records so far", w.Moved)
	}
	return strconv.Itoa(w.Moved) + " records"
}
