// Package reload notices that files have other content than before.
//
// It looks at the content and not at dates, and it looks itself: a Kubernetes
// volume is replaced by a symbolic link, and a copy may keep the old date. A
// file that is not there is content too.
package reload

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"slices"
	"time"
)

// maxFile limits what is read of a file, in bytes.
const maxFile = 8 << 20

// Watcher remembers what files had in them. It belongs to one goroutine.
type Watcher struct {
	seen map[string]string
}

// NewWatcher remembers the files as they are now.
func NewWatcher(files []string) *Watcher {
	w := &Watcher{seen: map[string]string{}}
	w.Changed(files)
	return w
}

// Changed returns those of the files whose content is not what it was when
// they were last looked at, and remembers them as they are now. A file that
// was never looked at has changed.
func (w *Watcher) Changed(files []string) []string {
	var out []string
	now := map[string]string{}
	for _, f := range files {
		now[f] = digest(f)
		if old, ok := w.seen[f]; !ok || old != now[f] {
			out = append(out, f)
		}
	}
	for f := range w.seen {
		if !slices.Contains(files, f) {
			out = append(out, f) // a drop-in that is gone
		}
	}
	w.seen = now
	return out
}

func digest(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return "absent"
	}
	defer func() { _ = f.Close() }()
	h := sha256.New()
	if _, err := io.Copy(h, io.LimitReader(f, maxFile)); err != nil {
		return "unreadable"
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

// Run calls changed whenever files change, or a signal comes, until ctx ends.
// A signal is a wish to read everything again: then all files count as
// changed. The list of files is asked for each time.
func Run(ctx context.Context, every time.Duration, signals <-chan os.Signal, files func() []string, changed func(ctx context.Context, files []string)) {
	w := NewWatcher(files())
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-signals:
			all := files()
			w.Changed(all)
			changed(ctx, all)
		case <-t.C:
			if some := w.Changed(files()); len(some) > 0 {
				changed(ctx, some)
			}
		}
	}
}
