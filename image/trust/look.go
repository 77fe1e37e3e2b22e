package trust

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/vouchsafe-cc/vouchsafe/image/internal/jsonstream"
)

// Limits of what is remembered of a value, in bytes.
const (
	maxValue = 64 << 10 // of a text that is compared
	maxSeen  = 1 << 10  // of what a verdict tells
)

// An outcome is what became of a condition.
type outcome int

const (
	failed  outcome = iota
	held            // it is certain that the condition holds
	unclear         // it is not certain that it does not
)

// found is what was found of one condition.
type found struct {
	c       *condition
	there   bool // the pointer names something
	twice   bool // or two things
	outcome outcome
	seen    string // for people
}

// A watch waits for the value at a path from where a scanner stands.
type watch struct {
	path []string
	of   *found
}

// look reads one value and judges all conditions about it in one pass, so that the
// value need not fit into memory.
func look(s *jsonstream.Scanner, where []condition) ([]found, error) {
	all := make([]found, len(where))
	if err := pass(s, watches(nil, where, all)); err != nil {
		return nil, err
	}
	for i := range all {
		all[i].settle()
	}
	return all, nil
}

// watches adds those of conditions, whose results all will have.
func watches(to []watch, where []condition, all []found) []watch {
	for i := range where {
		all[i] = found{c: &where[i]}
		to = append(to, watch{where[i].path, &all[i]})
	}
	return to
}

// pass reads one value, which ends some watches.
func pass(s *jsonstream.Scanner, ws []watch) error {
	if len(ws) == 0 {
		return s.Skip()
	}
	kind, err := s.Kind()
	if err != nil {
		return err
	}
	var here []*found
	var inside []watch
	for _, w := range ws {
		if len(w.path) > 0 {
			inside = append(inside, w)
			continue
		}
		w.of.there = true
		here = append(here, w.of)
	}
	switch kind {
	case jsonstream.Array:
		return passList(s, here, inside)
	case jsonstream.Object:
		for _, f := range here {
			f.structure()
		}
		return passObject(s, inside)
	default:
		v, err := s.Scalar(maxValue)
		for _, f := range here {
			f.scalar(v)
		}
		return err
	}
}

func passObject(s *jsonstream.Scanner, inside []watch) error {
	if len(inside) == 0 {
		return s.Skip()
	}
	var taken []string // names that are watched for
	return s.Object(func(name string) error {
		again := slices.Contains(taken, name)
		var next []watch
		for _, w := range inside {
			if w.path[0] != name {
				continue
			}
			if again {
				w.of.twice = true
				continue
			}
			next = append(next, watch{w.path[1:], w.of})
		}
		if len(next) > 0 {
			taken = append(taken, name)
		}
		return pass(s, next)
	})
}

// passList reads a list. Each condition about its elements is judged for one after
// the other, and no more than numbers is remembered of those.
func passList(s *jsonstream.Scanner, here []*found, inside []watch) error {
	var lists []*count
	for _, f := range here {
		if f.c.test.each == nil {
			f.structure()
			continue
		}
		lists = append(lists, &count{of: f, each: f.c.test.each, element: make([]found, len(f.c.test.each.where))})
	}
	err := s.Array(func(i int) error {
		var next []watch
		for _, l := range lists {
			next = watches(next, l.each.where, l.element)
		}
		for _, w := range inside {
			if w.path[0] == strconv.Itoa(i) {
				next = append(next, watch{w.path[1:], w.of})
			}
		}
		err := pass(s, next)
		for _, l := range lists {
			l.add()
		}
		return err
	})
	for _, l := range lists {
		l.of.outcome, l.of.seen = l.result()
	}
	return err
}

// count is how many elements of a list satisfy conditions.
type count struct {
	of      *found
	each    *each
	element []found // of the present one

	n, held, unclear int
}

func (l *count) add() {
	worst := held
	for i := range l.element {
		f := &l.element[i]
		f.settle()
		if f.outcome == failed || f.outcome == unclear && worst == held {
			worst = f.outcome
		}
	}
	l.n++
	switch worst {
	case held:
		l.held++
	case unclear:
		l.unclear++
	case failed:
	}
}

// result is unclear where an element that cannot be judged could make it another.
func (l *count) result() (outcome, string) {
	seen := fmt.Sprintf("%d of %d elements", l.held, l.n)
	certain := func(yes bool) outcome {
		if yes {
			return held
		}
		return failed
	}
	switch {
	case l.each.how == someElement && (l.held > 0 || l.unclear == 0):
		return certain(l.held > 0), seen
	case l.each.how == noElement && (l.held > 0 || l.unclear == 0):
		return certain(l.held == 0), seen
	case l.each.how == everyElement && (l.held+l.unclear < l.n || l.unclear == 0):
		return certain(l.n > 0 && l.held == l.n), seen
	}
	return unclear, fmt.Sprintf("%d of %d elements, which cannot be judged", l.unclear, l.n)
}

// structure is for a list or an object where none was expected.
func (f *found) structure() {
	f.outcome, f.seen = unclear, "no text, number or flag"
	if want := f.c.test.exists; want != nil {
		f.exist("something", *want)
	}
}

func (f *found) exist(seen string, right bool) {
	f.seen, f.outcome = seen, failed
	if right {
		f.outcome = held
	}
}

func (f *found) scalar(v jsonstream.Scalar) {
	switch test := f.c.test; {
	case v.Kind == jsonstream.Null: // some write it for nothing, some for something
		f.outcome, f.seen = unclear, "no text, number or flag"
	case test.exists != nil:
		f.exist("something", *test.exists)
	case test.each != nil:
		f.outcome, f.seen = unclear, "no list"
	case !v.Whole:
		f.outcome, f.seen = unclear, fmt.Sprintf("more than %d bytes", len(v.Text))
	default:
		f.exist(v.Text[:min(len(v.Text), maxSeen)], test.scalar(v))
	}
}

// settle judges what is certain only at the end.
func (f *found) settle() {
	switch want := f.c.test.exists; {
	case f.twice:
		f.outcome, f.seen = unclear, "two values"
	case f.there:
	default:
		f.exist("nothing", want != nil && !*want)
	}
}
