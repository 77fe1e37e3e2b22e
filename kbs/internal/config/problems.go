package config

import (
	"errors"
	"fmt"
)

// problems collects all that is wrong with a configuration, not only the
// first.
type problems []error

func (p *problems) bad(key, format string, args ...any) {
	*p = append(*p, fmt.Errorf("%s: %s", key, fmt.Sprintf(format, args...)))
}

func (p *problems) between(key string, v, low, high int) {
	if v < low || v > high {
		p.bad(key, "must be from %d to %d, is %d", low, high, v)
	}
}

func (p *problems) oneOf(key, v string, all ...string) {
	for _, a := range all {
		if v == a {
			return
		}
	}
	p.bad(key, "must be one of %q, is %q", all, v)
}

func (p *problems) err() error { return errors.Join(*p...) }
