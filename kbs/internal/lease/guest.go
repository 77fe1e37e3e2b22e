package lease

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/kbs/internal/token"
)

// Limits of what is kept of a guest's evidence.
const (
	maxClaims = 96
	maxDepth  = 6
	maxText   = 256 // bytes of a name and of a value
)

// Guest is who a lease is with.
type Guest struct {
	ID     string
	Claims map[string]string // by their paths, such as snp.chip_id
}

// fleeting are claims that a guest shows anew each time that it attests.
var fleeting = map[string]bool{
	"report_data": true, "reportdata": true, "nonce": true, "user_data": true, "runtime_data": true, "runtime_data_claims": true, "timestamp": true,
	"tpm_clock": true,
	"ima":       true, "pcr10": true, // the kernel measures files as they are opened
}

// GuestOf tells a guest by the single values of its evidence, those nearest to
// the top first. Lists, such as an event log, and what it shows anew each time
// are left out. A token that shows no evidence is a guest of its own.
func GuestOf(c token.Claims) Guest {
	all := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(c.Submods)) {
		dec := json.NewDecoder(bytes.NewReader(c.Submods[name].Evidence))
		dec.UseNumber()
		var v any
		if dec.Decode(&v) == nil {
			flatten("", v, 0, all)
		}
	}
	if len(all) == 0 {
		return Guest{ID: short("token " + c.ID)}
	}
	nearest := func(a, b string) int {
		return cmp.Or(cmp.Compare(strings.Count(a, "."), strings.Count(b, ".")), cmp.Compare(a, b))
	}
	// Where there are too many, those of the init-data go first: whoever launches a
	// guest writes them, and must not crowd out what the hardware says.
	paths := slices.SortedFunc(maps.Keys(all), func(a, b string) int {
		return cmp.Or(cmp.Compare(chosen(a), chosen(b)), nearest(a, b))
	})
	paths = paths[:min(len(paths), maxClaims)]
	slices.SortFunc(paths, nearest)
	g := Guest{Claims: map[string]string{}}
	var text strings.Builder
	for _, p := range paths {
		g.Claims[p] = all[p]
		fmt.Fprintf(&text, "%d %s %d %s ", len(p), p, len(all[p]), all[p])
	}
	g.ID = short(text.String())
	return g
}

// chosen is 1 for a claim that whoever launched the guest chose as they liked.
func chosen(path string) int {
	if strings.HasPrefix(path, "init_data_claims.") {
		return 1
	}
	return 0
}

func flatten(path string, v any, depth int, into map[string]string) {
	switch v := v.(type) {
	case map[string]any:
		if depth == maxDepth {
			return
		}
		for name, below := range v {
			if fleeting[strings.ToLower(name)] {
				continue
			}
			at := name
			if path != "" {
				at = path + "." + name
			}
			flatten(at, below, depth+1, into)
		}
	case string, json.Number, bool:
		if text := fmt.Sprint(v); text != "" && path != "" && len(text) <= maxText && len(path) <= maxText {
			into[path] = text
		}
	}
}
