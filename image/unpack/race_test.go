package unpack

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// The layer belongs to the caller alone; but if something exchanges its
// directories with links in the midst of it, still nothing is written outside.
func TestExchangedUnderneath(t *testing.T) {
	needRoot(t)
	all := []entry{dir("d"), dir("d/e")}
	for i := range 40 {
		at := []string{"d", "d/e", "d/../d/e"}[i%3]
		all = append(all, file(fmt.Sprintf("%s/%d", at, i), "x"), symlink(fmt.Sprintf("link%d", i), "x"), file(fmt.Sprintf("link%d", i), "y")) // forgets what is open
	}
	raw := archive(t, all...)
	exchanged, ended := 0, 0
	for range 150 {
		n, err := exchanging(t, raw)
		exchanged += n
		if err == nil {
			ended++
		}
	}
	if exchanged == 0 {
		t.Fatal("nothing was exchanged: this test shows less than it says")
	}
	t.Logf("%d exchanges; %d of 150 archives were unpacked to their end", exchanged, ended)
}

// exchanging unpacks while a directory turns into a link and back.
func exchanging(t *testing.T, raw []byte) (exchanged int, err error) {
	t.Helper()
	p := newPlace(t)
	victim, trap := filepath.Join(p.outer, "victim"), filepath.Join(p.outer, "trap")
	must(t, os.Mkdir(victim, 0o755))
	must(t, os.Symlink(victim, trap))
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if unix.Renameat2(unix.AT_FDCWD, trap, unix.AT_FDCWD, filepath.Join(p.layer, "d"), unix.RENAME_EXCHANGE) == nil {
				exchanged++
			}
		}
	})
	_, err = Apply(t.Context(), bytes.NewReader(raw), p.layer, Limits{})
	close(stop)
	wg.Wait()
	if names, rerr := os.ReadDir(victim); rerr != nil || len(names) > 0 {
		t.Fatalf("the archive reached %d files outside (%v)", len(names), rerr)
	}
	return exchanged, err
}
