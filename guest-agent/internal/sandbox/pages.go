package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// hugePages is where the kernel keeps pools of large pages, one for each size.
const hugePages = "/sys/kernel/mm/hugepages"

// hugeSizes reads "pagesize=2Mi,size=67108864": the size of a page and that of
// the volume, in bytes.
func hugeSizes(data string) (page, size uint64, err error) {
	for part := range strings.SplitSeq(data, ",") {
		key, value, _ := strings.Cut(part, "=")
		switch key {
		case "pagesize":
			page, err = parseSize(value)
		case "size":
			size, err = parseSize(value)
		default:
			err = invalidf("option %.64q of large pages is not supported", part)
		}
		if err != nil {
			return 0, 0, err
		}
	}
	if page == 0 || page&(page-1) != 0 || size < page {
		return 0, 0, invalidf("a volume of %d bytes in pages of %d", size, page)
	}
	return page, size, nil
}

// parseSize reads a number of bytes, or one with K, M or G, of which Kubernetes
// writes Ki and so on.
func parseSize(text string) (uint64, error) {
	number, unit := strings.TrimSuffix(text, "i"), uint64(1)
	for letter, n := range map[string]uint64{"K": 1 << 10, "M": 1 << 20, "G": 1 << 30} {
		if rest, ok := strings.CutSuffix(number, letter); ok {
			number, unit = rest, n
		}
	}
	n, err := strconv.ParseUint(number, 10, 63)
	if err != nil || n > 1<<62/unit {
		return 0, invalidf("%.32q is no size", text)
	}
	return n * unit, nil
}

// reservePages adds pages to the pool of their size. What is returned takes them
// out again.
func (s *Sandbox) reservePages(page, count uint64) (func() error, error) {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return nil, err
	}
	if count > info.Totalram*uint64(info.Unit)/page { //nolint:unconvert // wider on other platforms
		return nil, invalidf("%d pages of %d bytes are more than the guest has", count, page)
	}
	dir := s.cfg.HugePages
	if dir == "" {
		dir = hugePages
	}
	file := filepath.Join(dir, fmt.Sprintf("hugepages-%dkB", page>>10), "nr_hugepages")
	if err := s.addPages(file, int64(count)); err != nil { //nolint:gosec // less than there is
		return nil, err
	}
	now, err := pages(file)
	if err == nil && now < int64(count) { //nolint:gosec // as above
		err = fmt.Errorf("the kernel found %d of %d large pages", now, count)
	}
	back := func() error { return s.addPages(file, -int64(count)) } //nolint:gosec // as above
	if err != nil {
		return nil, errors.Join(err, back())
	}
	return back, nil
}

// addPages changes the size of a pool, one change at a time.
func (s *Sandbox) addPages(file string, count int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	now, err := pages(file)
	if errors.Is(err, os.ErrNotExist) {
		return invalidf("the guest has no pages of this size")
	}
	if err != nil {
		return err
	}
	return os.WriteFile(file, []byte(strconv.FormatInt(max(now+count, 0), 10)), 0)
}

func pages(file string) (int64, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(strings.TrimSpace(string(raw)), 10, 64)
}
