package group

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/store"
)

// Changes are what a batch does to the database, in the order of keys.
type Changes struct {
	Put    []Row
	Delete []string // may be absent already
	Floors Floors   // to be raised to, never lowered
}

// overlay is what one or more transactions changed, before it is in the
// database: for each key the last word. The zero value is empty.
type overlay struct {
	rows   map[string]*Row // nil: deleted
	floors Floors
	bytes  int // of all that was ever put
}

// rowCost is what a change takes beside key and value, in bytes, roughly.
const rowCost = 128

func (o *overlay) empty() bool { return len(o.rows) == 0 }

func (o *overlay) set(key string, r *Row) {
	if o.rows == nil {
		o.rows = make(map[string]*Row, 8)
	}
	o.rows[key] = r
	o.bytes += rowCost + len(key)
	if r != nil {
		o.bytes += len(r.Value)
	}
}

func (o *overlay) raise(key string, v store.Version) {
	if o.floors == nil {
		o.floors = Floors{}
	}
	o.floors.Raise(key, v)
}

// merge puts the later overlay over o.
func (o *overlay) merge(later *overlay) {
	if o.empty() && o.floors == nil {
		*o = *later
		return
	}
	maps.Copy(o.rows, later.rows)
	if o.floors == nil {
		o.floors = later.floors
	}
	for lane, v := range later.floors {
		o.floors[lane] = max(o.floors[lane], v)
	}
	o.bytes += later.bytes
}

func (o *overlay) flat() Changes {
	c := Changes{Floors: o.floors, Put: make([]Row, 0, len(o.rows))}
	for key, r := range o.rows {
		if r == nil {
			c.Delete = append(c.Delete, key)
		} else {
			c.Put = append(c.Put, *r)
		}
	}
	slices.SortFunc(c.Put, byKey)
	slices.Sort(c.Delete)
	return c
}

func byKey(a, b Row) int { return cmp.Compare(a.Key, b.Key) }

// within collects the changes to keys that start with prefix and sort after
// the key after.
func (o *overlay) within(prefix, after string, into map[string]*Row) {
	for key, r := range o.rows {
		if key > after && strings.HasPrefix(key, prefix) {
			into[key] = r
		}
	}
}
