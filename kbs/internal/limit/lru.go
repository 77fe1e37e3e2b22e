package limit

import (
	"container/list"
	"net/netip"
	"time"
)

// bucket is what an address has left.
type bucket struct {
	tokens float64
	at     time.Time // when that was so
}

// lru holds buckets by address, the longest unused last.
type lru struct {
	order list.List // of *entry
	by    map[netip.Addr]*list.Element
}

type entry struct {
	addr netip.Addr
	bucket
}

// get returns the bucket of an address, and whether it is new. It forgets the
// longest unused ones beyond most.
func (l *lru) get(a netip.Addr, most int) (b *bucket, fresh bool) {
	if e, ok := l.by[a]; ok {
		l.order.MoveToFront(e)
		return &e.Value.(*entry).bucket, false
	}
	if l.by == nil {
		l.by = map[netip.Addr]*list.Element{}
	}
	for l.order.Len() >= most {
		last := l.order.Back()
		delete(l.by, last.Value.(*entry).addr)
		l.order.Remove(last)
	}
	e := &entry{addr: a}
	l.by[a] = l.order.PushFront(e)
	return &e.bucket, true
}
