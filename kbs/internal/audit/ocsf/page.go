package ocsf

import (
	"fmt"
	"strings"

	"github.com/vouchsafe-cc/vouchsafe/kbs/api"
)

const pageHead = `<!-- Generated from the code by ` + "`make generate`" + `. -->

# What the audit log tells

Each entry is one leaf of a Merkle tree, written before the answer that it is about. ` + "`kbsctl audit verify`" + ` proves
that none was changed or dropped. Its members:

| member | meaning |
|---|---|
| ` + "`index`" + ` | place in the log, from 0, without gaps |
| ` + "`time`" + ` | UTC, to the microsecond, by the clock of the broker that wrote it |
| ` + "`kind`" + ` | one of the table below |
| ` + "`decision`" + ` | ` + "`allow`, `deny`, `error`" + ` (the broker failed, and so refused) or ` + "`change`" + ` |
| ` + "`code`, `ticket`" + ` | of a refusal: [codes](codes.md); ` + "`kbsctl explain ticket/TICKET`" + ` has the reason |
| ` + "`subject`" + ` | who: a guest, ` + "`admin:NAME`" + `, or ` + "`kbs`" + ` itself |
| ` + "`object`" + ` | what it was about |
| ` + "`tenant`" + ` | absent for the tenant ` + "`default`" + ` |
| ` + "`details`" + ` | the rest, as text |

Sinks deliver entries as they are, or as events of the Open Cybersecurity Schema Framework ` + Version + `, described in
[audit-event.schema.json](audit-event.schema.json). ` + "`metadata.sequence`" + ` of an event is the index, and ` + "`raw_data`" + ` the leaf.

| kind | object | meaning | OCSF class | activity |
|---|---|---|---|---|
`

// Page returns the reference of all kinds, in Markdown.
func Page() string {
	var b strings.Builder
	b.WriteString(pageHead)
	for _, k := range api.AuditKinds() {
		m := mappingOf(k.Kind)
		object := ""
		if k.Object != "" {
			object = "`" + k.Object + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %d %s | %d %s |\n", k.Kind, object, k.Meaning,
			m.class.uid, m.class.name, m.activity, m.class.activities[m.activity])
	}
	return b.String()
}
